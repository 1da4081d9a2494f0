"""RTP as senders really send it: padding, losses, pictures that cannot be decoded, odd sizes."""

import asyncio
import struct
from asyncio import timeout
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from aiortc.rtp import HeaderExtensionsMap, RtcpByePacket, RtpPacket

from portrait.transports.webrtc import uplink
from portrait.transports.webrtc.aiortc_patches import dtls
from tests.fakes import FakeModel, full_mask
from tests.handmade import STEP, Encoder, HandmadeClient, handmade, without
from tests.rtc import fake_service

pytestmark = pytest.mark.usefixtures("no_sockets_left")


async def pad(client: HandmadeClient) -> None:
    """A bandwidth probe of libwebrtc without RTX: only padding, with the time of the picture before."""
    for _ in range(3):
        await client.send(b"", timestamp=client.timestamp - STEP, padding=224)


async def end_with_padding(client: HandmadeClient) -> None:
    await client.send(b"", timestamp=client.timestamp, padding=100, marker=True)
    client.timestamp += STEP


async def send_descriptor(client: HandmadeClient) -> None:
    """A VP8 payload descriptor without a picture; of H.264 a fragmentation unit without a header."""
    await client.send(b"\x10" if client.codec == "VP8" else b"\x7c", marker=True)
    client.timestamp += STEP


async def send_empty_retransmission(client: HandmadeClient) -> None:
    """RTX with nothing but the original sequence number (RFC 4588 section 4)."""
    await client.send(b"", timestamp=client.timestamp - STEP, rtx=True)


@pytest.mark.parametrize("codec", ["VP8", "H264"])
@pytest.mark.parametrize("send", [pad, end_with_padding, send_descriptor, send_empty_retransmission])
async def test_packets_without_a_picture_change_nothing(codec: str, send: object) -> None:
    """Taken for a picture, an empty packet ended the decoder's stream: it decoded nothing any more."""
    async with fake_service(FakeModel(full_mask)) as (url, _), handmade(url, codec) as client:
        encoder = Encoder(codec)
        await client.connect("/webrtc")
        await client.until_frames(3, encoder)
        before = (await client.numbers())["frames_refused"]
        for _ in range(3):
            await send(client)  # type: ignore[operator]
            await client.until_frames(3, encoder)
        assert (await client.numbers())["frames_refused"] == before


@pytest.mark.parametrize("source", ["_ssrc", "_rtx_ssrc"])
async def test_a_source_that_says_goodbye_does_not_end_the_session(source: str) -> None:
    """An encoder that starts again does so, and sends on; the connection says when a client leaves."""
    async with fake_service(FakeModel(full_mask)) as (url, sessions), handmade(url) as client:
        encoder = Encoder()
        await client.connect("/webrtc")
        await client.until_frames(3, encoder)
        await send_empty_retransmission(client)  # so that the service knows the source of retransmissions
        sender: Any = client.transceiver.sender
        await sender.transport._send_rtp(bytes(RtcpByePacket(sources=[getattr(sender, source)])))
        await client.until_frames(5, encoder)
        assert len(sessions) == 1


@pytest.mark.parametrize("payload_type", [None, 127], ids=["of the camera", "of no codec"])
async def test_a_connection_whose_media_is_of_too_many_sources_is_ended(
    payload_type: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has keys and statistics of its own, which nothing frees before the connection."""
    monkeypatch.setattr(dtls, "MOST_SOURCES", 20)
    async with fake_service(FakeModel(full_mask)) as (url, sessions), handmade(url) as client:
        await client.connect("/webrtc")
        await client.until_frames(3, Encoder())
        [name] = sessions._open
        ended = asyncio.ensure_future(sessions[name].wait_ended())
        sender: Any = client.transceiver.sender
        kind = client.transceiver._codecs[0].payloadType if payload_type is None else payload_type
        for source in range(1000, 1040):
            packet = RtpPacket(payload_type=kind, sequence_number=1, timestamp=1, ssrc=source, payload=b"\x10")
            await sender.transport._send_rtp(packet.serialize(HeaderExtensionsMap()))
        async with timeout(60):
            await ended
            while len(sessions):
                await asyncio.sleep(0.01)


def extended(profile: int, values: bytes) -> bytes:
    """An RTP packet of a source of its own, with these header extensions."""
    return struct.pack("!BBHLLHH", 0x90, 96, 1, 1, 1234, profile, len(values) // 4) + values


MALFORMED = {
    "extensions of one byte": [extended(0xBEDE, bytes([number << 4, 1, 0, 0])) for number in range(1, 15)],
    "extensions of no byte": [extended(0x1000, bytes([number, 0, 0, 0])) for number in range(1, 15)],
    "an estimate for absent sources": [struct.pack("!BBHLL4sBBH", 0x8F, 206, 4, 1, 0, b"REMB", 200, 0, 1)],
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_packet_of_wrong_lengths_ends_no_session(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nor does it write a traceback: a sender can send as many as it likes."""
    async with fake_service(FakeModel(full_mask)) as (url, sessions), handmade(url) as client:
        encoder = Encoder()
        await client.connect("/webrtc")
        await client.until_frames(3, encoder)
        for packet in MALFORMED[name]:
            await client.transceiver.sender.transport._send_rtp(packet)
        await client.until_frames(5, encoder)
        assert len(sessions) == 1
    assert "Traceback" not in caplog.text


async def test_padding_before_and_after_the_first_picture_changes_nothing() -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), handmade(url) as client:
        encoder = Encoder()
        await client.connect("/webrtc")
        await pad(client)
        await client.feed(encoder, 1)
        await pad(client)
        await client.until_frames(5, encoder)


async def test_a_stream_that_cannot_be_decoded_is_told_and_ended_without_a_storm_of_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uplink, "UNDECODABLE_SECONDS", 2.0)
    async with fake_service(FakeModel(full_mask)) as (url, sessions), handmade(url) as client:
        told: asyncio.Queue[str] = asyncio.Queue()
        client.one.pc.createDataChannel("events").on("message", told.put_nowait)
        await client.connect("/webrtc")
        session = sessions[client.one.location.rpartition("/")[2]]
        ended = asyncio.ensure_future(session.wait_ended())
        began = asyncio.get_running_loop().time()
        async with timeout(60):
            while not ended.done():
                await client.send_picture([b"\x10 a picture of no kind", b"\x00 in two packets"])
                await asyncio.sleep(1 / 30)
        seconds = asyncio.get_running_loop().time() - began
        assert "no picture could be decoded for 2 s" in ended.result()
        assert 1 <= len(client.plis) <= 2 * seconds + 1
        async with timeout(60):
            assert '{"refused": "frame: it cannot be decoded' in await told.get()
            while '{"closed": "no picture could be decoded' not in await told.get():
                pass


async def test_a_frame_of_a_refused_size_is_told() -> None:
    async with fake_service(FakeModel(full_mask), max_frame_pixels=1000) as (url, _), handmade(url) as client:
        told: asyncio.Queue[str] = asyncio.Queue()
        client.one.pc.createDataChannel("events").on("message", told.put_nowait)
        await client.connect("/webrtc")
        feeding = asyncio.create_task(client.feed(Encoder(), 300))
        async with timeout(60):
            assert "320x240" in await told.get()
        feeding.cancel()


async def test_a_picture_that_cannot_be_decoded_is_not_told_where_others_follow() -> None:
    """The page would say of a lost packet that the camera's pictures are too large."""
    async with fake_service(FakeModel(full_mask)) as (url, sessions), handmade(url) as client:
        told: asyncio.Queue[str] = asyncio.Queue()
        client.one.pc.createDataChannel("events").on("message", told.put_nowait)
        encoder = Encoder()
        await client.connect("/webrtc")
        await client.until_frames(5, encoder)
        session = sessions[client.one.location.rpartition("/")[2]]
        async with timeout(60):
            while not session.counters.refused:
                await client.send_picture([b"\x10 a picture of no kind"])
                await asyncio.sleep(1 / 30)
                await client.send_picture(encoder.make(keyframe=True))
                await asyncio.sleep(1 / 30)
        await client.until_frames(5, encoder)
        session.end("the test has seen enough")
        heard = []
        async with timeout(60):
            while not heard or "closed" not in heard[-1]:
                heard.append(await told.get())
        assert not [event for event in heard if "refused" in event]


@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_without_nack_a_lost_packet_costs_a_keyframe_and_no_second(codec: str) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), handmade(url, codec) as client:
        encoder = Encoder(codec)
        await client.connect("/webrtc", without("nack"))
        await client.until_frames(5, encoder)
        asked = len(client.plis)
        for _ in range(3):
            payloads = encoder.make(640, 480, keyframe=True)
            assert len(payloads) > 2
            await client.send_picture(payloads, lost=1)
            await client.until_frames(5, encoder)
        assert client.nacks == []
        assert len(client.plis) > asked


async def test_without_any_feedback_none_is_sent() -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), handmade(url) as client:
        encoder = Encoder()
        await client.connect("/webrtc", without("nack", "nack pli", "goog-remb"))
        await client.until_frames(5, encoder)
        await client.send_picture(encoder.make(640, 480, keyframe=True), lost=1)
        await client.feed(encoder, 10)
        await client.send_picture(encoder.make(keyframe=True))
        await client.until_frames(5, encoder)
        assert (client.nacks, client.plis) == ([], [])


async def test_with_nack_a_lost_packet_is_asked_for() -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), handmade(url) as client:
        encoder = Encoder()
        await client.connect("/webrtc")
        await client.until_frames(5, encoder)
        lost = client.sequence + 1
        await client.send_picture(encoder.make(640, 480, keyframe=True), lost=1)
        await client.until_frames(5, encoder)
        assert lost in client.nacks


@pytest.mark.parametrize("size", [(321, 241), (320, 241), (321, 240)])
async def test_a_stream_of_an_odd_size_is_shown_to_viewers_of_both_codecs(size: tuple[int, int]) -> None:
    """x264 takes even sizes only; a viewer whose encoder had failed once saw nothing any more."""
    async with (
        fake_service(FakeModel(full_mask)) as (url, _),
        handmade(url, direction="sendonly") as camera,
        handmade(url, "VP8", "recvonly") as first,
        handmade(url, "H264", "recvonly") as second,
    ):
        encoder = Encoder()
        await camera.connect("/whip/desk")
        await first.connect("/whep/desk")
        await second.connect("/whep/desk")
        for shown in ((320, 240), size, (320, 240)):
            wanted = {first: shown, second: (shown[0] & ~1, shown[1] & ~1)}
            async with timeout(60):
                while any(not one.frames or _size(one) != expected for one, expected in wanted.items()):
                    await camera.feed(encoder, 3, *shown)


def _size(client: HandmadeClient) -> tuple[int, int]:
    return client.frames[-1].width, client.frames[-1].height


async def test_a_viewer_whose_pictures_cannot_be_encoded_is_ended() -> None:
    """One pixel high: no codec takes it cropped to even."""
    async with (
        fake_service(FakeModel(full_mask)) as (url, _),
        handmade(url, direction="sendonly") as camera,
        handmade(url, "H264", "recvonly") as two,
    ):
        await camera.connect("/whip/desk")
        await two.connect("/whep/desk")
        feeding = asyncio.create_task(camera.feed(Encoder(), 900, 64, 1))
        async with timeout(60), aiohttp.ClientSession() as http:
            while (await http.get(two.one.location)).status == 200:
                await asyncio.sleep(0.05)
        feeding.cancel()


async def test_times_of_pictures_never_jump_where_rtp_timestamps_wrap() -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), handmade(url) as client:
        encoder = Encoder()
        client.timestamp = 2**32 - 10 * STEP
        await client.connect("/webrtc")
        for _ in range(40):
            client.timestamp %= 2**32
            await client.feed(encoder, 1)
        times = [frame.pts for frame in client.frames]
        assert len(times) > 10
        assert all(a is not None and b is not None and 0 < b - a < 90_000 for a, b in pairwise(times))
