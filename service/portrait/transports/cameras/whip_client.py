"""The client's side of WHIP and WHEP (RFC 9725, draft-ietf-wish-whep): an offer to another server, and the end."""

import asyncio
from asyncio import timeout
from contextlib import suppress
from urllib.parse import urljoin

import aiohttp
from aiortc import RTCSessionDescription

from portrait.transports.cameras.addresses import Address
from portrait.transports.cameras.packets import CameraFailed
from portrait.transports.files.reader import TIMEOUT
from portrait.transports.webrtc.connection import Connection

SDP = "application/sdp"

MOST_SDP = 64 * 1024
"""Bytes of an answer."""

END_SECONDS = 2.0
"""How long the other server has to hear that we leave."""


def open_http() -> aiohttp.ClientSession:
    """What the requests of one connection are sent with; `leave` closes it."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT[0]))


async def post_offer(connection: Connection, http: aiohttp.ClientSession, address: Address) -> str | None:
    """Post an offer for what the connection has, and take the answer.

    Returns the address by which the other side ends it, if there is one.

    Raises:
        CameraFailed: refused, or not answered as it should be.
        aiohttp.ClientError, TimeoutError, OSError: the server cannot be reached.
    """
    await connection.pc.setLocalDescription(await connection.pc.createOffer())
    headers = {"Content-Type": SDP, "Accept": SDP, **address.headers}
    offer = connection.pc.localDescription.sdp
    # A redirect would lead to an address that the operator has not named.
    async with http.post(address.url, data=offer, headers=headers, allow_redirects=False) as response:
        if response.status in (401, 403):
            raise CameraFailed("the server refused the user name, the password or the token")
        if response.status == 404:
            raise CameraFailed("the server has nothing at this path")
        if response.status != 201:
            raise CameraFailed(f"the server answered the offer with status {response.status}")
        answer = b""
        while part := await response.content.read(MOST_SDP + 1 - len(answer)):
            answer += part
        location = response.headers.get("Location")
    await connection.pc.setRemoteDescription(RTCSessionDescription(answer.decode("utf-8", "replace"), "answer"))
    return urljoin(address.url, location) if location else None


async def leave(connection: Connection, http: aiohttp.ClientSession, address: Address, resource: str | None) -> None:
    """Close the connection, tell the server that was named, and close `http`.

    To be shielded: cancelled half-way, it would leave sockets open.
    """
    await connection.close()
    if resource is not None and resource.startswith(urljoin(address.url, "/")):  # a Location may say anything
        with suppress(aiohttp.ClientError, TimeoutError, OSError):  # else it will notice by itself
            async with timeout(END_SECONDS), http.delete(resource, headers=address.headers):
                pass
    await http.close()


def say(error: Exception) -> str:
    """What a failure means, in words without an address."""
    match error:
        case CameraFailed():
            return str(error)
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return "the server's certificate is not trusted"
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, ConnectionRefusedError):
            return "nothing listens at this address"
        case TimeoutError() | asyncio.TimeoutError():
            return f"nothing came for {TIMEOUT[0]:g} s"
        case aiohttp.ClientError() | OSError():
            return f"the server cannot be reached: {type(error).__name__}"
    return f"what the address answers is neither WHIP nor WHEP: {type(error).__name__}"
