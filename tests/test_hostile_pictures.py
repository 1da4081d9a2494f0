"""Pictures and video that nobody's encoder made: refused by name, never more memory than their size allows."""

import contextlib
import zlib
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from aiortc.codecs.vpx import Vp8Encoder, vp8_depayload
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from portrait.core.compositors import Options
from portrait.errors import BadPicture
from portrait.image.backgrounds import load_background
from portrait.image.frame import Frame
from portrait.transports.webrtc.aiortc_patches import video_codecs as decoders
from portrait.transports.webrtc.backlog import CodedPictures, Decoding
from portrait.transports.webrtc.codec import CameraCodec
from portrait.transports.webrtc.keyframes import coded_size
from tests.claims import png
from tests.frames import decode_bgr
from tests.people import room

LIMIT = 200_000


DAMAGED = Path(__file__).parent / "corpus" / "picture" / "animation.png"
"""For which OpenCV 4.11 and 4.12 end the process."""


def test_a_damaged_animation_is_refused_like_any_other_damage() -> None:
    with pytest.raises(BadPicture, match="damaged or cut short"):
        decode_bgr(DAMAGED.read_bytes(), LIMIT)


def peak() -> int:
    """Bytes of memory this process has had at most."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@cache
def zeros() -> bytes:
    """256 MB of them, compressed; that takes a second."""
    return zlib.compress(bytes(2**28), 9)


BOMBS: dict[str, Callable[[], bytes]] = {
    "a size of 4 gigapixels": lambda: png(65535, 65535),
    "a chunk of 4 gigabytes": lambda: png(1, 1)[:33] + b"\xff\xff\x00\x0c" + png(1, 1)[37:],
    "an end of 4 gigabytes": lambda: png(1, 1)[:33] + b"\xff\xff\x00\x0cIEND" + bytes(20),
    "a size beyond 2**31 pixels": lambda: png(2**31 - 1, 2**31 - 1),
    "a text of a gigabyte": lambda: png(8, 8, (b"zTXt", b"x\0\0" + zeros() * 4)),
    "a profile of a gigabyte": lambda: png(8, 8, (b"iCCP", b"x\0\0" + zeros() * 4)),
    "rows that go on for ever": lambda: png(8, 8, data=zeros()),
    "a JPEG of 65535x65535": lambda: (
        cv2.imencode(".jpg", room(8, 8))[1].tobytes().replace(b"\x00\x08\x00\x08", b"\xff" * 4)
    ),
}


def progressive(side: int) -> bytes:
    options = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_OPTIMIZE, 1)
    return cv2.imencode(".jpg", room(side, side), options)[1].tobytes()


def with_scans(data: bytes, count: int) -> bytes:
    """A progressive JPEG whose last scan comes `count` times more; each is gone through pixel by pixel."""
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


JPEG = cv2.imencode(".jpg", room(64, 48))[1].tobytes()
WEBP = cv2.imencode(".webp", room(64, 48))[1].tobytes()
SCAN_IN_TEXT = b"\xff\xfe\x00\x04\xff\xd9"
"""A comment that says what ends a picture: the decoder passes over it."""

WORK = {
    "a JPEG of 210 scans": (with_scans(progressive(64), 200), "210 scans, expected at most 100"),
    "scans behind an end in a comment": (
        with_scans(progressive(64)[:-2] + SCAN_IN_TEXT + b"\xff\xd9", 200), "scans, expected at most 100",
    ),
    "a JPEG of empty comments": (JPEG[:2] + b"\xff\xfe\x00\x02" * 5000 + JPEG[2:], "JPEG picture of more than"),
    "a JPEG of empty metadata": (JPEG[:2] + b"\xff\xe1\x00\x02" * 5000 + JPEG[2:], "JPEG picture of more than"),
    "a PNG of empty chunks": (png(8, 8, *[(b"abCd", b"")] * 5000), "PNG picture of more than"),
    "a PNG of texts": (png(8, 8, *[(b"tEXt", b"a\0b")] * 5000), "PNG picture of more than"),
    "a WebP of empty chunks": (WEBP[:12] + b"ABCD\0\0\0\0" * 5000 + WEBP[12:], "WEBP picture of more than"),
}  # fmt: skip


@pytest.mark.parametrize("name", WORK)
def test_a_picture_of_more_parts_than_any_encoder_writes_is_refused(name: str) -> None:
    """Each costs time apart from pixels and bytes: 32 MB of scans of 60 bytes were two hours of a core."""
    data, said = WORK[name]
    with pytest.raises(BadPicture, match=said):
        decode_bgr(data, LIMIT)


def test_pictures_of_as_many_parts_as_encoders_write_are_taken() -> None:
    motion = np.random.default_rng(1).integers(0, 255, 200, np.uint8).tobytes() + b"\xff\xda" * 500
    rows = zlib.compress(bytes(8 * 25), 0)
    for data in (
        with_scans(progressive(64), 60),
        progressive(64) + motion,  # phones put a video behind the picture
        JPEG[:2] + (b"\xff\xe2\x40\x00" + bytes(0x3FFE)) * 500 + JPEG[2:],
        png(8, 8, *[(b"tEXt", b"Key\0value")] * 500, data=rows),
        JPEG + bytes(20),
    ):
        decode_bgr(data, LIMIT)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_never_takes_much_memory(bomb: str) -> None:
    data = BOMBS[bomb]()
    assert len(data) < 2 * 2**20
    forget_peak()
    before = peak()
    for work in (lambda: decode_bgr(data, LIMIT), lambda: load_background(data)):
        with contextlib.suppress(BadPicture):
            work()
    assert peak() - before < 150 * 2**20


def key_frame(codec: str, width: int, height: int) -> bytes:
    """An encoder's picture of that size."""
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "yuv420p", Fraction(1, 30)
    if codec == "libx264":
        encoder.options = {"preset": "ultrafast", "tune": "zerolatency"}
    picture = av.VideoFrame.from_ndarray(np.zeros((height * 3 // 2, width), np.uint8), format="yuv420p")
    picture.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])


def test_a_vp8_key_frame_that_claims_a_huge_size_costs_nothing() -> None:
    """67 bytes that would take libvpx a gigabyte."""
    data = bytearray(key_frame("libvpx", 64, 64))
    decoder = decoders.BoundedVp8Decoder()
    assert [frame.width for frame in decoder.decode(JitterFrame(bytes(data), 0))] == [64]
    data[6:10] = (16383).to_bytes(2, "little") * 2
    forget_peak()
    before = peak()
    with pytest.raises(av.error.InvalidDataError, match="got 16383x16383, which is 268402689 pixels"):
        decoder.decode(JitterFrame(bytes(data), 0))
    assert peak() - before < 20 * 2**20


@pytest.mark.parametrize(
    ("codec", "kind"), [("libvpx", decoders.BoundedVp8Decoder), ("libx264", decoders.BoundedH264Decoder)]
)
def test_no_decoder_gives_a_picture_above_the_bound(codec: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "MAX_PIXELS", 320 * 240)
    assert len(kind().decode(JitterFrame(key_frame(codec, 320, 240), 0))) == 1
    with pytest.raises(av.FFmpegError):
        kind().decode(JitterFrame(key_frame(codec, 640, 480), 0))


def coded(*pictures: bytes, decoding: Decoding | None = None) -> CodedPictures:
    codec = RTCRtpCodecParameters("video/VP8", 90_000, payloadType=97)
    frames = [(codec, JitterFrame(data, 3000 * number)) for number, data in enumerate(pictures)]
    return CodedPictures(frames, 0.0, decoding or Decoding(lambda: None))


def test_all_pictures_are_decoded_and_the_newest_is_returned() -> None:
    encoder = Vp8Encoder()
    pictures = []
    for number in range(4):
        picture = av.VideoFrame.from_ndarray(np.full((96, 64), 60 * number, np.uint8), format="yuv420p")
        picture.pts, picture.time_base = 3000 * number, Fraction(1, 90_000)
        pictures.append(b"".join(map(vp8_depayload, encoder.encode(picture)[0])))
    newest = CameraCodec(10**6).decode(coded(*pictures), 0.0, Options("mask"))
    assert newest.timestamp.ticks == 9000
    # Each builds on the one before: without the third the second's grey would stay.
    assert newest.y.mean() == pytest.approx(180, abs=8)


@pytest.mark.parametrize(
    ("width", "height", "profile"),
    [
        (640, 360, "baseline"), (1366, 768, "high"), (1920, 1080, "high"), (1280, 720, "high444"), (17, 33, "high444"),
        (1920, 1080, "interlaced"), (640, 360, "interlaced"),
    ],
)  # fmt: skip
def test_the_size_of_an_h264_picture_is_read_before_it_is_decoded(width: int, height: int, profile: str) -> None:
    """Cropped: 1080 lines are coded as 1088."""
    encoder = av.CodecContext.create("libx264", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.time_base = width, height, Fraction(1, 30)
    encoder.pix_fmt = "yuv444p" if profile == "high444" else "yuv420p"
    settings = {"interlaced": {"x264-params": "interlaced=1"}, "high": {"x264-params": "cqm=jvt"}}
    encoder.options = {"preset": "ultrafast", **settings.get(profile, {})}
    picture = av.VideoFrame(width, height, encoder.pix_fmt)
    picture.pts = 0
    data = b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])
    assert coded_size(data) == (width, height)
    assert coded_size(data[data.index(b"\0\0\1\x68") :]) is None  # without its sequence parameter set


@pytest.mark.parametrize("codec", ["libvpx", "libx264"])
def test_a_stream_of_too_large_pictures_is_refused_undecoded_and_shown_again_once_they_are_smaller(codec: str) -> None:
    """A decoder keeps up to seventeen pictures, 133 MB of 4096x2304 as measured, for as long as the session."""
    kind = RTCRtpCodecParameters("video/VP8" if codec == "libvpx" else "video/H264", 90_000, payloadType=97)
    large, small = key_frame(codec, 4096, 2304), key_frame(codec, 64, 64)
    camera, decoding = CameraCodec(64 * 64), Decoding(lambda: None)

    def decode(*pictures: bytes) -> Frame:
        frames = [(kind, JitterFrame(data, 3000 * number)) for number, data in enumerate(pictures)]
        return camera.decode(CodedPictures(frames, 0.0, decoding), 0.0, Options("mask"))

    assert decode(small).width == 64
    forget_peak()
    before = peak()
    for pictures in ((large,), (b"\x01what follows it",), (small, large)):
        with pytest.raises(BadPicture, match="4096x2304 is 9437184 pixels; expected at most 4096"):
            decode(*pictures)
    assert peak() - before < 8 * 2**20
    assert decoding.failing_since is None  # it is told why, and not ended
    assert decode(large, small).width == 64


def test_what_cannot_be_decoded_is_named_a_keyframe_asked_for_and_the_next_one_shown() -> None:
    codec, key = CameraCodec(10**6), key_frame("libvpx", 64, 64)
    asked: list[None] = []
    decoding = Decoding(lambda: asked.append(None))
    garbage = b"garbage that is no picture"
    with pytest.raises(BadPicture, match=r"it cannot be decoded: .*Invalid"):
        codec.decode(coded(garbage, decoding=decoding), 0.0, Options("mask"))
    assert len(asked) == 1
    assert decoding.failing_since is not None
    assert codec.decode(coded(key, decoding=decoding), 0.0, Options("mask")).width == 64
    assert decoding.failing_since is None
    assert codec.decode(coded(key, garbage, decoding=decoding), 0.0, Options("mask")).width == 64
    assert len(asked) == 2


def test_a_decoder_that_takes_the_stream_for_ended_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg takes an empty packet for the end, and then refuses everything for ever."""
    monkeypatch.setattr(decoders, "_decode", lambda codec, picture: codec.decode(av.Packet(picture.data)))
    codec, key = CameraCodec(10**6), key_frame("libvpx", 64, 64)
    decoding = Decoding(lambda: None)
    for data in (b"", key):
        with pytest.raises(BadPicture):
            codec.decode(coded(data, decoding=decoding), 0.0, Options("mask"))
    monkeypatch.undo()
    assert codec.decode(coded(key, decoding=decoding), 0.0, Options("mask")).width == 64


def test_a_decoder_that_cannot_decode_a_keyframe_is_replaced() -> None:
    codec, key = CameraCodec(10**6), key_frame("libvpx", 64, 64)
    decoding = Decoding(lambda: None)
    codec.decode(coded(key, decoding=decoding), 0.0, Options("mask"))
    before = codec._decoder
    too_large = key[:6] + (2**14 - 1).to_bytes(2, "little") * 2 + key[10:]
    with pytest.raises(BadPicture):
        codec.decode(coded(too_large, decoding=decoding), 0.0, Options("mask"))
    assert codec.decode(coded(key, decoding=decoding), 0.0, Options("mask")).width == 64
    assert codec._decoder is not before
