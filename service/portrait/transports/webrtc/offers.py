"""What every POST of an offer has in common."""

from aiohttp import web

from portrait.errors import BadOffer
from portrait.transports.webrtc.rate import Rate

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
