"""How much a session description may ask for: aiortc takes each of these in without a bound, on the event loop."""

import re
from collections import Counter

from portrait.errors import BadOffer

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
