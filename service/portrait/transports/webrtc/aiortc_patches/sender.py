"""How a sender sends: a picture's packets together, and lost ones again, within bounds.

aiortc builds, encrypts and sends one packet after the other. Those of a picture differ in their number, marker and
payload only: here they share a header and are handed to the socket together.
"""

import asyncio
import logging
import time
from struct import pack
from typing import Any, NamedTuple

from aiortc import RTCRtpSender, clock
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcdtlstransport import State
from aiortc.rtcrtpsender import random_sequence_number
from aiortc.rtp import RTCP_RTPFB_NACK, RTP_HISTORY_SIZE, AnyRtcpPacket, HeaderExtensions, RtcpRtpfbPacket
from aiortc.utils import uint16_add

from portrait.transports.webrtc.aiortc_patches.udp_socket import MediaTransport

logger = logging.getLogger(__name__)

RESEND_SECONDS = 0.04
"""A packet is sent again at most this often. Receivers wait for a round trip before they ask once more."""

NO_TRACK_SECONDS = 0.02
"""How often a sender without a track looks for one, as in aiortc."""

RTP_CLOCK = 1 << 32
"""RTP timestamps are modulo this (RFC 3550 section 5.1)."""


COMPONENT = 1
"""Of an ICE connection; RTCP is multiplexed with it (RFC 5761)."""

RTCP = range(192, 209)
"""The second byte of an RTCP packet (RFC 5761 section 4)."""


class SentPacket(NamedTuple):
    """A packet as it was sent, before encryption."""

    sequence_number: int
    data: bytes
    payload_at: int
    """Where its payload begins."""


async def run_rtp(self: Any, codec: Any) -> None:
    """Send what the track gives, until that or the connection ends. Replaces RTCRtpSender._run_rtp.

    What the track gives has an RTP timestamp; aiortc would add a random origin to it.
    """
    self._RTCRtpSender__rtp_started.set()
    number = random_sequence_number()
    try:
        while True:
            if self.track is None:
                await asyncio.sleep(NO_TRACK_SECONDS)
                continue
            if self.kind == "video":  # sound is small, and every packet of it counts
                await wait_for_room(self.transport)
            picture = await self._next_encoded_frame(codec)
            if picture is not None:
                packets = _packets(self, codec.payloadType, number, picture)
                send_together(self.transport, [packet.data for packet in packets])
                number = uint16_add(number, len(packets))
                _keep(self, packets, picture)
    except (asyncio.CancelledError, ConnectionError, MediaStreamError):
        pass
    except Exception:
        logger.exception("a sender stops")  # what follows must be done all the same: `stop` waits for it
    if self.track is not None:
        self.track.stop()
        self._RTCRtpSender__track = None
    self._RTCRtpSender__encoder = None
    self._RTCRtpSender__rtp_exited.set()


def _packets(sender: Any, payload_type: int, number: int, picture: Any) -> list[SentPacket]:
    """The packets of a picture, the first with this sequence number (RFC 3550 section 5.1)."""
    extensions = HeaderExtensions(
        abs_send_time=(clock.current_ntp_time() >> 14) & 0x00FFFFFF, mid=sender._RTCRtpSender__mid
    )
    if picture.audio_level is not None:
        extensions.audio_level = (False, -picture.audio_level)
    profile, values = sender._RTCRtpSender__rtp_header_extensions_map.set(extensions)
    version, tail = 0x80, pack("!LL", picture.timestamp % RTP_CLOCK, sender._ssrc)
    if values:
        version, tail = 0x90, tail + pack("!HH", profile, len(values) // 4) + values
    payload_at, last, packets = 4 + len(tail), len(picture.payloads) - 1, []
    for index, payload in enumerate(picture.payloads):
        kind = payload_type | (0x80 if index == last else 0)
        data = pack("!BBH", version, kind, number) + tail + payload
        packets.append(SentPacket(number, data, payload_at))
        number = uint16_add(number, 1)
    return packets


def _keep(sender: Any, packets: list[SentPacket], picture: Any) -> None:
    """Keep packets to send them again, and what sender reports say of them."""
    history = sender._RTCRtpSender__rtp_history
    for packet in packets:
        history[packet.sequence_number % RTP_HISTORY_SIZE] = packet
    sender._RTCRtpSender__ntp_timestamp = clock.current_ntp_time()
    sender._RTCRtpSender__rtp_timestamp = picture.timestamp % RTP_CLOCK
    sender._RTCRtpSender__octet_count += sum(map(len, picture.payloads))
    sender._RTCRtpSender__packet_count += len(packets)


async def retransmit(self: Any, sequence_number: int) -> None:
    """Send a packet again, in a stream of its own where that is agreed (RFC 4588). Replaces RTCRtpSender._retransmit.

    Raises:
        ConnectionError: the connection has ended.
    """
    packet: SentPacket | None = self._RTCRtpSender__rtp_history.get(sequence_number % RTP_HISTORY_SIZE)
    if packet is None or packet.sequence_number != sequence_number:
        return
    data, payload_type = packet.data, self._RTCRtpSender__rtx_payload_type
    if payload_type is not None:
        number = self._RTCRtpSender__rtx_sequence_number
        self._RTCRtpSender__rtx_sequence_number = uint16_add(number, 1)
        head = pack("!BBH", data[0], data[1] & 0x80 | payload_type, number) + data[4:8] + pack("!L", self._rtx_ssrc)
        at = packet.payload_at
        data = head + data[12:at] + pack("!H", sequence_number) + data[at:]
    send_together(self.transport, [data])


async def handle_rtcp_packet(self: RTCRtpSender, packet: AnyRtcpPacket) -> None:
    """As aiortc, but each packet is sent again once, however often it is asked for. Replaces that of RTCRtpSender.

    A request of 4 KB can name packets 17,000 times, which would hold the event loop up for a second.
    """
    if isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
        packet.lost = _due(self, packet.lost)
    await _stock_handle_rtcp_packet(self, packet)


def _due(sender: Any, lost: list[int]) -> list[int]:
    """Which of the packets to send again now: those that are still kept, and have not just been sent again."""
    now, history = time.monotonic(), sender._RTCRtpSender__rtp_history
    resent: dict[int, tuple[int, float]] = vars(sender).setdefault("_resent", {})
    due = []
    for number in set(lost):
        place = number % RTP_HISTORY_SIZE
        kept, (before, at) = history.get(place), resent.get(place, (-1, 0.0))
        if kept is not None and kept.sequence_number == number and (before != number or now - at >= RESEND_SECONDS):
            resent[place] = number, now
            due.append(number)
    return due


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


_stock_handle_rtcp_packet = RTCRtpSender._handle_rtcp_packet
