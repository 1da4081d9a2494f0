"""How much a session description may ask for: aiortc takes each of these in without a bound, on the event loop."""

import re

from portrait.errors import BadOffer

MOST = {"m=": 16, "a=candidate:": 100, "a=rtpmap:": 400, "a=ssrc:": 400, "": 3000}
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


def check_fragment(fragment: str) -> None:
    """Refuse a fragment that is longer than any client's.

    Raises:
        BadOffer: says the length and the limit.
    """
    if len(fragment) > MAX_FRAGMENT:
        raise BadOffer("sdpfrag", f"{len(fragment)} characters; expected {MAX_FRAGMENT} at most")
