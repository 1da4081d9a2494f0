"""The short way of a camera's packets, from the socket to the backlog.

aiortc lets every datagram wait for a task, which awaits five coroutines for it and parses what is not read here. A
packet of a known source goes this way instead, at once when it is read. The first one of a source, retransmissions,
RTCP and DTLS go aiortc's way.
"""

from contextlib import suppress
from dataclasses import dataclass
from struct import unpack_from
from typing import Any

import pylibsrtp
from aiortc.rtcdtlstransport import State
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    RtcpPsfbPacket,
    RtcpRtpfbPacket,
    pack_remb_fci,
)

from portrait.transports.webrtc.aiortc_patches.receiver import LiveJitterBuffer, depayload
from portrait.transports.webrtc.aiortc_patches.srtp import send_together

HEADER = 12
"""Bytes of an RTP header without lists and extensions (RFC 3550 section 5.1)."""

EXTENSION = 4
"""Bytes before the words of a header extension (ibid. section 5.3.1)."""


class CameraPacket:
    """What statistics and a jitter buffer want to know of a packet."""

    __slots__ = ("_data", "marker", "payload", "sequence_number", "timestamp")

    def __init__(self, sequence_number: int, timestamp: int, marker: int, payload: bytes) -> None:
        self.sequence_number, self.timestamp, self.marker, self.payload = sequence_number, timestamp, marker, payload
        self._data = b""
        """The payload without its descriptor, under aiortc's name."""


def read_packet(data: bytes) -> CameraPacket | None:
    """The packet of at least a header's bytes; None where it is cut short. Extensions are skipped."""
    bits, kind, number, timestamp = unpack_from("!BBHL", data)
    begin = HEADER + 4 * (bits & 0x0F)
    if bits & 0x10:
        begin += EXTENSION + 4 * int.from_bytes(data[begin + 2 : begin + EXTENSION], "big")
    padding = data[-1] if bits & 0x20 else 0
    if begin + padding > len(data) or (bits & 0x20 and not padding):
        return None
    return CameraPacket(number, timestamp, kind >> 7, data[begin : len(data) - padding])


@dataclass(frozen=True, slots=True)
class _Way:
    """Where packets of a source and a payload type go."""

    receiver: Any
    ssrc: int
    payload_type: int
    codec: RTCRtpCodecParameters


class CameraPackets:
    """The packets of one DTLS transport's cameras. An ICE connection offers it every datagram first."""

    def __init__(self, transport: Any) -> None:
        self._transport, self._session = transport, transport._rx_srtp
        self._ways: dict[bytes, _Way] = {}

    def add(self, source: bytes, receiver: Any, payload_type: int) -> None:
        """Take the packets of this source and payload type from now on, if its pictures are kept undecoded."""
        codec = receiver._RTCRtpReceiver__codecs.get(payload_type)
        is_camera = isinstance(receiver._RTCRtpReceiver__jitter_buffer, LiveJitterBuffer)
        if is_camera and codec is not None and codec.name.lower() != "rtx":
            self._ways[source] = _Way(receiver, int.from_bytes(source, "big"), payload_type, codec)

    def take(self, data: bytes) -> bool:
        """Take a datagram if it is a packet of a known source. Returns whether it is."""
        way, transport = self._ways.get(data[8:12]), self._transport
        if way is None or data[0] >> 6 != 2 or data[1] & 0x7F != way.payload_type:
            return False
        statistics = way.receiver._RTCRtpReceiver__remote_streams.get(way.ssrc)
        if statistics is None or transport._state is not State.CONNECTED:
            return False
        transport._RTCDtlsTransport__rx_bytes += len(data)
        transport._RTCDtlsTransport__rx_packets += 1
        with suppress(pylibsrtp.Error):  # not its sender's, or one that has come already
            packet = read_packet(self._session.unprotect(data))
            if packet is not None and way.receiver._enabled:
                statistics.add(packet)
                _handle(way, packet)
        return True


def _handle(way: _Way, packet: CameraPacket) -> None:
    """Ask for what is missing, put the packet in order, and hand on the picture that it completes."""
    receiver = way.receiver
    remb, lost = receiver._RTCRtpReceiver__remote_bitrate_estimator, receiver._RTCRtpReceiver__nack_generator
    if remb is not None and (due := remb.add(0, 0, 0, way.ssrc)) is not None:
        _report(receiver, RtcpPsfbPacket(RTCP_PSFB_APP, _own(receiver), 0, pack_remb_fci(*due)))
    if lost is not None and lost.add(packet):
        _report(receiver, RtcpRtpfbPacket(RTCP_RTPFB_NACK, _own(receiver), way.ssrc, sorted(lost.missing)))
    if packet.payload:
        packet._data = depayload(way.codec, packet.payload)
    wants_keyframe, picture = receiver._RTCRtpReceiver__jitter_buffer.add(packet)
    if wants_keyframe:
        _report(receiver, RtcpPsfbPacket(RTCP_PSFB_PLI, _own(receiver), way.ssrc))
    if picture is not None:
        picture.timestamp = receiver._RTCRtpReceiver__timestamp_mapper.map(picture.timestamp)
        receiver._RTCRtpReceiver__decoder_queue.put((way.codec, picture))


def _own(receiver: Any) -> int:
    """The source that a receiver's reports are from."""
    ssrc: int = receiver._RTCRtpReceiver__rtcp_ssrc
    return ssrc


def _report(receiver: Any, packet: Any) -> None:
    with suppress(ConnectionError):
        send_together(receiver.transport, [bytes(packet)])
