"""The video encoders, without a peer."""

from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from aiortc.codecs import depayload, vpx
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from portrait.image.convert import frame_from_bgr
from portrait.image.frame import Frame, Timestamp
from portrait.transports.webrtc.aiortc_patches import video_codecs as encoders
from portrait.transports.webrtc.keyframes import is_keyframe
from tests.people import person, room, swaying

pytestmark = pytest.mark.usefixtures("no_sockets_left")


def noise(count: int, width: int = 640, height: int = 480) -> list[av.VideoFrame]:
    frames = []
    rng = np.random.default_rng(1)
    for i in range(count):
        picture = cv2.resize(rng.integers(0, 255, (24, 32, 3), np.uint8), (width, height))
        frame = av.VideoFrame.from_ndarray(np.asarray(picture, np.uint8), format="bgr24").reformat(format="yuv420p")
        frame.pts, frame.time_base = 3000 * i, Fraction(1, 90_000)
        frames.append(frame)
    return frames


@pytest.mark.parametrize("encoder", [encoders.LiveVp8Encoder, encoders.LiveH264Encoder])
def test_an_encoder_outlives_small_moves_of_the_bandwidth_estimate(
    encoder: type[encoders.LiveVp8Encoder] | type[encoders.LiveH264Encoder],
) -> None:
    frames = noise(4)
    tested = encoder()
    payloads, timestamp = tested.encode(frames[0])
    assert payloads
    assert timestamp == 0
    first = tested.codec
    assert first is not None
    assert first.thread_count == 1
    tested.target_bitrate = int(tested.target_bitrate * 1.3)
    tested.encode(frames[1])
    assert tested.codec is first
    tested.target_bitrate = int(tested.target_bitrate * 1.8)
    tested.encode(frames[2])
    assert tested.codec is not first
    assert tested.codec.bit_rate == tested.target_bitrate
    tested.encode(noise(1, 320, 240)[0])
    assert (tested.codec.width, tested.codec.height) == (320, 240)


def psnr(encoder: vpx.Vp8Encoder, frames: list[av.VideoFrame]) -> tuple[float, int]:
    """(dB of luma in the median of the later pictures, bytes of all)."""
    decoder, found, size = vpx.Vp8Decoder(), [], 0
    for frame in frames:
        payloads, timestamp = encoder.encode(frame)
        data = b"".join(map(vpx.vp8_depayload, payloads))
        size += len(data)
        (shown,) = decoder.decode(JitterFrame(data, timestamp))
        found.append(cv2.PSNR(frame.to_ndarray()[: frame.height], shown.to_ndarray()[: frame.height]))
    return float(np.median(found[len(found) // 2 :])), size


def test_what_the_settings_save_is_not_seen() -> None:
    """A person who sits in a room, against aiortc's encoder at the same rate: no worse, in fewer bytes."""
    shown = swaying(person(), 640, 360, 45, share=0.7)
    frames = []
    for number, picture in enumerate(shown.frames):
        blurred = np.where(shown.masks[number][..., None] > 127, picture, cv2.GaussianBlur(picture, (0, 0), 12))
        frame = av.VideoFrame.from_ndarray(blurred, format="bgr24").reformat(format="yuv420p")
        frame.pts, frame.time_base = 3000 * number, Fraction(1, 90_000)
        frames.append(frame)
    (ours, size), (theirs, most) = psnr(encoders.LiveVp8Encoder(), frames), psnr(vpx.Vp8Encoder(), frames)
    assert ours > 42
    assert ours > theirs - 1
    assert size < 0.8 * most


def codec(name: str, mode: str = "1") -> RTCRtpCodecParameters:
    return RTCRtpCodecParameters(f"video/{name}", 90_000, payloadType=97, parameters={"packetization-mode": mode})


def frame(number: int, width: int = 320, height: int = 240) -> Frame:
    return frame_from_bgr(
        np.roll(room(width, height), number, axis=1), Timestamp(3000 * number, Fraction(1, 90_000)), 0.0
    )


@pytest.mark.parametrize("name", ["VP8", "H264"])
def test_a_keyframe_for_one_viewer_is_not_one_for_another_of_the_same_frame(name: str) -> None:
    encoders_ = [encoders.PictureEncoder() for _ in range(2)]
    for each in encoders_:
        each.open(codec(name))
    made: list[list[bool]] = [[], []]
    for number in range(6):
        shown = frame(number)
        if number in (2, 4):
            encoders_[0].want_keyframe()
        for each, found in zip(encoders_, made, strict=True):
            data = b"".join(depayload(codec(name), payload) for payload in each.encode(shown).payloads)
            found.append(is_keyframe(data))
    assert made == [[True, False, True, False, True, False], [True, False, False, False, False, False]]


@pytest.mark.parametrize("name", ["VP8", "H264"])
def test_a_camera_whose_times_repeat_run_back_or_jump_is_encoded_and_keeps_its_times(name: str) -> None:
    """As those of an encoder that starts again. libvpx refused them, which ended the session, or all viewers."""
    encoder = encoders.PictureEncoder()
    encoder.open(codec(name))
    for ticks in (9000, 9000, 9001, 3000, 0, 2**31, 2**31 + 2**30, 2**33, 2**33 + 3000, 5):
        made = encoder.encode(replace(frame(1), timestamp=Timestamp(ticks, Fraction(1, 90_000))))
        assert made.payloads
        assert made.timestamp == ticks
    made = encoder.encode(replace(frame(2), timestamp=Timestamp(7, Fraction(1, 1000))))
    assert made.timestamp == 630


@pytest.mark.parametrize("size", [(321, 240), (320, 241), (321, 241), (17, 33)])
def test_h264_of_an_odd_size_loses_its_last_row_and_column(size: tuple[int, int]) -> None:
    encoder, decoder = encoders.PictureEncoder(), av.CodecContext.create("h264", "r")
    encoder.open(codec("H264"))
    for number in range(3):
        made = encoder.encode(frame(number, *size))
        data = b"".join(depayload(codec("H264"), payload) for payload in made.payloads)
        (shown,) = decoder.decode(av.Packet(data))  # type: ignore[attr-defined]
        assert (shown.width, shown.height) == (size[0] & ~1, size[1] & ~1)
        assert made.timestamp == 3000 * number


def test_h264_in_packetization_mode_0_sends_one_nal_unit_in_each_packet() -> None:
    encoder, decoder = encoders.PictureEncoder(), av.CodecContext.create("h264", "r")
    encoder.open(codec("H264", "0"))
    payloads = encoder.encode(frame(0, 1280, 720)).payloads
    assert len(payloads) > 5
    assert all(1 <= payload[0] & 0x1F <= 23 and len(payload) <= 1300 for payload in payloads)
    data = b"".join(b"\0\0\0\1" + payload for payload in payloads)
    assert len(decoder.decode(av.Packet(data))) == 1  # type: ignore[attr-defined]


def test_what_another_sender_of_the_process_has_encoded_is_packed_as_by_aiortc() -> None:
    packet = av.Packet(b"\x10\x02\x00" + bytes(3000))
    packet.pts, packet.time_base = 90, Fraction(1, 1000)
    payloads, timestamp = encoders.LiveVp8Encoder().pack(packet)
    assert timestamp == 8100
    assert b"".join(depayload(codec("VP8"), payload) for payload in payloads) == bytes(packet)
