"""Encrypting packets and sending them together, when there is room."""

from typing import Any

from aiortc.rtcdtlstransport import State

from portrait.transports.webrtc.aiortc_patches.udp_socket import MediaTransport

COMPONENT = 1
"""Of an ICE connection; RTCP is multiplexed with it (RFC 5761)."""

RTCP = range(192, 209)
"""The second byte of an RTCP packet (RFC 5761 section 4)."""


def send_together(transport: Any, packets: list[bytes]) -> None:
    """Encrypt packets, all of RTP or all of RTCP, and send them with as few system calls as the way takes.

    Raises:
        ConnectionError: the DTLS transport is not connected.
    """
    pair = transport.transport._connection._nominated.get(COMPONENT)
    if transport._state is not State.CONNECTED or pair is None:
        raise ConnectionError("cannot send media: not connected")
    session, way = transport._tx_srtp, pair.protocol.transport
    protect = session.protect_rtcp if packets[0][1] in RTCP else session.protect
    datagrams = [protect(packet) for packet in packets]
    if isinstance(way, MediaTransport):
        way.send_together(datagrams, pair.remote_addr)
    else:
        for datagram in datagrams:
            way.sendto(datagram, pair.remote_addr)
    transport._RTCDtlsTransport__tx_bytes += sum(map(len, datagrams))
    transport._RTCDtlsTransport__tx_packets += len(datagrams)


async def wait_for_room(transport: Any) -> None:
    """Wait while what has been sent waits for a slow line, where that can be known."""
    pair = transport.transport._connection._nominated.get(COMPONENT)
    if pair is not None and isinstance(way := pair.protocol.transport, MediaTransport):
        await way.wait_for_room(pair.remote_addr)
