"""Limits of session descriptions and of requests: aiortc parses offers of any size on the event loop."""

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from portrait.errors import BadOffer, TooManyRequests

BURST = 100
PER_SECOND = 10.0
"""Requests of one address at once, and in the long run. A proxy's address stands for all its clients, and a client that
trickles sends some ten."""

FULL_SECONDS = BURST / PER_SECOND
"""After this long without a request an address has its whole burst again, and is forgotten."""

MOST_ADDRESSES = 10_000


@dataclass(slots=True)
class Bucket:
    """How many requests one address has left, and since when."""

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
            TooManyRequests: the address sends too many; says when to try again.
        """
        now = self._clock()
        if len(self._buckets) >= MOST_ADDRESSES or now - self._swept > FULL_SECONDS:
            self._forget(now)
        bucket = self._buckets.setdefault(address or "", Bucket(BURST, now))
        bucket.left = min(BURST, bucket.left + (now - bucket.since) * PER_SECOND)
        bucket.since = now
        if bucket.left < 1:
            raise TooManyRequests(f"got more than {PER_SECOND:g} requests a second from this address", 1.0)
        bucket.left -= 1

    def _forget(self, now: float) -> None:
        """Forget the addresses that have their whole burst again, or all of them when those are too few."""
        self._swept = now
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if now - bucket.since < FULL_SECONDS}
        if len(self._buckets) >= MOST_ADDRESSES:
            self._buckets.clear()


MOST = {"m=": 16, "a=candidate:": 100, "a=rtpmap:": 400, "a=ssrc:": 400, "a=rtcp-fb:": 1000, "": 3000}
"""How many lines of an offer may begin like this. A browser's has three media sections, ten candidates and 150
codecs."""

MOST_CANDIDATES = 100
"""Candidates of one connection, trickled ones included: each is paired with every address of the box."""

MAX_FRAGMENT = 32 * 1024
"""Characters of a trickle-ice-sdpfrag."""


def check_offer(offer: str) -> None:
    """Refuse an offer that is larger than any client's, or ambiguous.

    Raises:
        BadOffer: says of what there is too much, and how much is expected.
    """
    # As every later reader takes the lines apart: a lone CR, a form feed and others end one too.
    lines = offer.splitlines()
    for start, most in MOST.items():
        count = sum(line.startswith(start) for line in lines)
        if count > most:
            raise BadOffer("sdp", f"got {count} lines {start or 'in all'}, expected at most {most}")
    _, *sections = re.split("^m=", "\n".join(lines), flags=re.MULTILINE)
    for section in sections:
        # aiortc answers with every mapping and each one's feedback: megabytes for kilobytes.
        if twice := _twice(re.findall(r"^a=rtpmap:(\S*)", section, re.MULTILINE)):
            raise BadOffer("sdp", f"got two a=rtpmap of payload type {twice} in one section, expected one")
    names = [name for section in sections for name in re.findall(r"^a=mid:(\S*)", section, re.MULTILINE)]
    if twice := _twice(names):
        raise BadOffer("sdp", f"got a=mid:{twice} twice, expected each once")


def _twice(names: list[str]) -> str | None:
    """A name that occurs more than once."""
    return next((name[:40] for name, count in Counter(names).items() if count > 1), None)


def check_fragment(fragment: str) -> None:
    """Refuse a fragment that is longer than any client's.

    Raises:
        BadOffer: says length and limit.
    """
    if len(fragment) > MAX_FRAGMENT:
        raise BadOffer("sdpfrag", f"got {len(fragment)} characters, expected at most {MAX_FRAGMENT}")


SDP = "application/sdp"

MAX_SDP = 64 * 1024
"""Bytes of an offer; a browser's has some 6 KB."""


async def read_offer(request: web.Request, rate: Rate) -> str:
    """The whole offer in a request's body.

    Raises:
        TooManyRequests: its address sends too many.
        BadOffer: it is too long.
        HTTPException: the content type is another, or the client does not accept SDP.
    """
    rate.take(request.remote)
    if request.content_type not in (SDP, "application/octet-stream"):
        raise web.HTTPUnsupportedMediaType(
            text=f"got {request.content_type}, expected {SDP}", headers={"Accept-Post": SDP}
        )
    accepted = request.headers.get("Accept", "*/*")
    if not any(wanted in accepted for wanted in (SDP, "application/*", "*/*")):
        raise web.HTTPNotAcceptable(text=f"got Accept: {accepted!r}, expected {SDP} in it")
    body = b""
    # A single read returns what has arrived so far, which on a slow line is half an offer.
    while part := await request.content.read(MAX_SDP + 1 - len(body)):
        body += part
        if len(body) > MAX_SDP:
            raise BadOffer("sdp", f"got more than {MAX_SDP} bytes, expected fewer")
    return body.decode("utf-8", "replace")
