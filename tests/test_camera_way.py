"""The short way of a camera's packets: without a network."""

import os
from types import SimpleNamespace
from typing import Any

import pytest
from aiortc import RTCRtpReceiver
from aiortc.rtcdtlstransport import State
from aiortc.rtcrtpparameters import RTCRtcpFeedback, RTCRtpCodecParameters
from aiortc.rtcrtpreceiver import StreamStatistics
from aiortc.rtp import (
    HeaderExtensions,
    HeaderExtensionsMap,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtpPacket,
)
from hypothesis import given
from hypothesis import strategies as st
from pylibsrtp import Policy, Session

from portrait.transports.webrtc import aiortc_patches
from portrait.transports.webrtc.aiortc_patches import receiver as receivers
from portrait.transports.webrtc.aiortc_patches.receiver import CameraPackets, read_packet, receive_undecoded
from portrait.transports.webrtc.backlog import Backlog

SOURCE = 0x01020304
NAME = SOURCE.to_bytes(4, "big")
VP8 = RTCRtpCodecParameters(
    "video/VP8", 90_000, payloadType=97, rtcpFeedback=[RTCRtcpFeedback("nack"), RTCRtcpFeedback("nack", "pli")]
)
RTX = RTCRtpCodecParameters("video/rtx", 90_000, payloadType=98, parameters={"apt": 97})
KEYFRAME = b"\x10" + b"\x10\0\0\x9d\x01\x2a" + bytes(4)
"""A payload descriptor and the head of a VP8 keyframe."""


class Sender:
    """Encrypts what a camera sends."""

    def __init__(self, key: bytes) -> None:
        policy = Policy(key=key, ssrc_type=Policy.SSRC_ANY_OUTBOUND)
        policy.allow_repeat_tx = True
        self._session = Session(policy)

    def packet(self, number: int, payload: bytes = KEYFRAME, marker: int = 1, payload_type: int = 97) -> bytes:
        packet = RtpPacket(payload_type, marker, number, 3000 * number, SOURCE, payload)
        return self._session.protect(packet.serialize())

    def report(self) -> bytes:
        return self._session.protect_rtcp(bytes(RtcpRrPacket(SOURCE, [RtcpReceiverInfo(SOURCE, 0, 0, 0, 0, 0, 0)])))


class Service:
    """A DTLS transport of which a camera's receiver is a part."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        aiortc_patches.install()
        key = os.urandom(30)
        self.camera, self.stranger = Sender(key), Sender(os.urandom(30))
        session = Session(Policy(key=key, ssrc_type=Policy.SSRC_ANY_INBOUND))
        self.transport = SimpleNamespace(
            state="connected", _state=State.CONNECTED, _rx_srtp=session,
            _RTCDtlsTransport__rx_bytes=0, _RTCDtlsTransport__rx_packets=0,
        )  # fmt: skip
        self.receiver: Any = RTCRtpReceiver("video", self.transport)  # type: ignore[arg-type]
        transceiver = SimpleNamespace(receiver=self.receiver, _codecs=[VP8, RTX])
        self.backlog: Backlog = receive_undecoded(transceiver, lambda: None)[0]
        self.receiver._RTCRtpReceiver__codecs.update({97: VP8, 98: RTX})
        self.receiver._RTCRtpReceiver__remote_streams[SOURCE] = StreamStatistics(90_000)
        self.receiver._set_rtcp_ssrc(5)
        self.reports: list[Any] = []
        monkeypatch.setattr(receivers, "_report", lambda _, packet: self.reports.append(packet))
        self.packets = CameraPackets(self.transport)
        self.packets.add(NAME, self.receiver, 97)

    async def pictures(self) -> list[int]:
        """The times of the pictures that have come, in packets."""
        return [each.timestamp // 3000 for _, each in (await self.backlog.take()).pictures]


async def test_pictures_arrive_and_packets_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(monkeypatch)
    sent = [service.camera.packet(number) for number in (65534, 65535)]
    assert all(service.packets.take(data) for data in sent)
    assert await service.pictures() == [65534, 65535]
    assert service.transport._RTCDtlsTransport__rx_packets == 2
    assert service.transport._RTCDtlsTransport__rx_bytes == sum(map(len, sent))
    assert service.receiver._RTCRtpReceiver__remote_streams[SOURCE].packets_received == 2
    assert service.reports == []


async def test_what_is_missing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(monkeypatch)
    for number in (1, 2, 5):
        assert service.packets.take(service.camera.packet(number))
    assert [(type(each), each.lost) for each in service.reports] == [(RtcpRtpfbPacket, [3, 4])]
    for number in (4, 3):
        assert service.packets.take(service.camera.packet(number))
    assert await service.pictures() == [1, 2, 3]


async def test_a_keyframe_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(monkeypatch)
    service.backlog.decoding.failed("damaged")
    assert service.packets.take(service.camera.packet(1))
    assert [(type(each), each.media_ssrc) for each in service.reports] == [(RtcpPsfbPacket, SOURCE)]


async def test_what_is_unusual_is_left_to_aiortc(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(monkeypatch)
    service.packets.add(NAME, service.receiver, 98)  # retransmissions are none of its kinds
    left = [service.camera.packet(1, payload_type=98), service.camera.report(), b"", b"\x16", bytes(30)]
    assert not any(service.packets.take(data) for data in left)
    other = CameraPackets(service.transport)
    other.add(NAME, RTCRtpReceiver("audio", service.transport), 97)  # type: ignore[arg-type]
    assert not other.take(service.camera.packet(1))
    service.transport._state = State.CLOSED
    assert not service.packets.take(service.camera.packet(1))
    assert service.transport._RTCDtlsTransport__rx_packets == 0


async def test_packets_of_a_stranger_and_those_that_come_twice_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(monkeypatch)
    data = service.camera.packet(1)
    assert service.packets.take(service.stranger.packet(1))
    assert all(service.packets.take(each) for each in (data, data, data[:-1]))
    assert await service.pictures() == [1]
    assert service.receiver._RTCRtpReceiver__remote_streams[SOURCE].packets_received == 1


@given(
    packet=st.builds(
        RtpPacket,
        payload_type=st.integers(0, 127),
        marker=st.integers(0, 1),
        sequence_number=st.integers(0, 2**16 - 1),
        timestamp=st.integers(0, 2**32 - 1),
        ssrc=st.integers(0, 2**32 - 1),
        payload=st.binary(max_size=30),
    ),
    sources=st.lists(st.integers(0, 2**32 - 1), max_size=15),
    mid=st.none() | st.text("abc", min_size=1, max_size=20),
    padding=st.integers(0, 20),
    cut=st.integers(0, 60),
)
def test_packets_are_read_as_aiortc_reads_them(
    packet: RtpPacket, sources: list[int], mid: str | None, padding: int, cut: int
) -> None:
    extensions = HeaderExtensionsMap()
    vars(extensions)["_HeaderExtensionsMap__ids"].mid = 1
    packet.csrc, packet.padding_size, packet.extensions = sources, padding, HeaderExtensions(mid=mid)
    whole = packet.serialize(extensions)
    data = whole[: max(12, len(whole) - cut)]
    read = read_packet(data)
    try:
        theirs = RtpPacket.parse(data, extensions)
    except ValueError:
        assert read is None
        return
    assert read is not None
    names = ("sequence_number", "timestamp", "marker", "payload")
    assert [getattr(read, name) for name in names] == [getattr(theirs, name) for name in names]
