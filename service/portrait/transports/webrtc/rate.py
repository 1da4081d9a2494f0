"""How often one address may ask for a connection."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from portrait.errors import TooManyRequests

BURST = 100
PER_SECOND = 10.0
"""Requests that come at once, and in the long run. A proxy's address stands for all its clients; a trickling client
sends some ten."""

FULL_SECONDS = BURST / PER_SECOND
"""After so long without a request an address has everything again, and is forgotten."""

MOST_ADDRESSES = 10_000


@dataclass(slots=True)
class Bucket:
    """What one address has left, and since when."""

    left: float
    since: float


class Rate:
    """A token bucket for each address (RFC 9725 section 5 asks for a limit)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}
        self._swept = clock()

    def take(self, address: str | None) -> None:
        """Count a request of that address.

        Raises:
            TooManyRequests: it has asked too often; says when to ask again.
        """
        now = self._clock()
        if len(self._buckets) >= MOST_ADDRESSES or now - self._swept > FULL_SECONDS:
            self._forget(now)
        bucket = self._buckets.setdefault(address or "", Bucket(BURST, now))
        bucket.left = min(BURST, bucket.left + (now - bucket.since) * PER_SECOND)
        bucket.since = now
        if bucket.left < 1:
            raise TooManyRequests(f"more than {PER_SECOND:g} requests a second came from this address", 1.0)
        bucket.left -= 1

    def _forget(self, now: float) -> None:
        """Forget whoever has been quiet for long enough to have everything again, or else everybody."""
        self._swept = now
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if now - bucket.since < FULL_SECONDS}
        if len(self._buckets) >= MOST_ADDRESSES:
            self._buckets.clear()
