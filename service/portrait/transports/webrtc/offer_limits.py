"""How much a session description may ask for: aiortc takes each of these in without a bound, on the event loop."""

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from portrait.errors import BadOffer, TooManyRequests

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


MOST = {"m=": 16, "a=candidate:": 100, "a=rtpmap:": 400, "a=ssrc:": 400, "a=rtcp-fb:": 1000, "": 3000}
"""Lines of an offer by how they begin, at most. A browser's has three media sections, ten candidates and 150 codecs."""

MOST_CANDIDATES = 100
"""Of a connection, those that came later among them: each is paired with every address of the box."""

MAX_FRAGMENT = 32 * 1024
"""Characters of a trickle-ice-sdpfrag."""


def check_offer(offer: str) -> None:
    """Refuse an offer of more than any client's.

    Raises:
        BadOffer: says of what, and how much is expected.
    """
    for start, most in MOST.items():
        count = len(re.findall(f"^{start}", offer, re.MULTILINE))
        if count > most:
            raise BadOffer("sdp", f"{count} lines {start or 'in all'}; expected {most} at most")
    head, *sections = re.split("^m=", offer, flags=re.MULTILINE)
    for section in sections:
        # aiortc answers with every mapping and each one's feedback: megabytes for kilobytes.
        if twice := _twice(re.findall(r"^a=rtpmap:(\S*)", section, re.MULTILINE)):
            raise BadOffer("sdp", f"payload type {twice} is mapped twice in one section")
    # Of sections that are bundled with none, aiortc keeps the transports half open.
    names = [name for section in sections for name in re.findall(r"^a=mid:(\S*)", section, re.MULTILINE)]
    if twice := _twice(names):
        raise BadOffer("sdp", f"a=mid:{twice} is said twice")
    for group in re.findall(r"^a=group:BUNDLE(.*)", head, re.MULTILINE):
        if unknown := set(group.split()) - set(names):
            raise BadOffer("sdp", f"a=group:BUNDLE names {min(unknown)[:40]!r}, which no section has as its a=mid")


def _twice(names: list[str]) -> str | None:
    """One that is there more than once."""
    return next((name[:40] for name, count in Counter(names).items() if count > 1), None)


def check_fragment(fragment: str) -> None:
    """Refuse a fragment that is longer than any client's.

    Raises:
        BadOffer: says the length and the limit.
    """
    if len(fragment) > MAX_FRAGMENT:
        raise BadOffer("sdpfrag", f"{len(fragment)} characters; expected {MAX_FRAGMENT} at most")


SDP = "application/sdp"

MAX_SDP = 64 * 1024
"""Bytes of an offer; a browser's has some 6 KB."""


async def read_offer(request: web.Request, rate: Rate) -> str:
    """The offer of a request, whole.

    Raises:
        TooManyRequests: its address asks too often.
        BadOffer: too long.
        HTTPException: another content type came, or the client takes no SDP.
    """
    rate.take(request.remote)
    if request.content_type not in (SDP, "application/octet-stream"):
        raise web.HTTPUnsupportedMediaType(
            text=f"{request.content_type} came; expected {SDP}", headers={"Accept-Post": SDP}
        )
    accepted = request.headers.get("Accept", "*/*")
    if not any(wanted in accepted for wanted in (SDP, "application/*", "*/*")):
        raise web.HTTPNotAcceptable(text=f"{accepted} is accepted; the answer is {SDP}")
    body = b""
    # A single read gives what has come so far, which on a slow line is half an offer.
    while part := await request.content.read(MAX_SDP + 1 - len(body)):
        body += part
        if len(body) > MAX_SDP:
            raise BadOffer("sdp", f"more than {MAX_SDP} bytes")
    return body.decode("utf-8", "replace")
