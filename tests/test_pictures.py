"""Pictures to frames and back, and everything that is no picture."""

import io
import struct
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from portrait.errors import BadPicture
from portrait.image.compressed import decode_frame, encode, read_size
from portrait.image.convert import bgr_from_frame, fit_cover, frame_from_bgr, frame_from_i420, frame_from_rgb24
from portrait.image.frame import Frame, Timestamp, i420_length, pack_i420
from tests.claims import png
from tests.frames import decode_bgr
from tests.people import Array, room

NOW = Timestamp(5, Fraction(1, 30))


def smooth(width: int, height: int) -> Array:
    """A picture that survives halved chroma: no fine colour detail."""
    return np.asarray(cv2.GaussianBlur(room(width, height), (0, 0), 12), np.uint8)


@pytest.mark.parametrize("size", [(64, 48), (63, 47), (1, 1), (2, 1), (1, 3), (641, 361)])
def test_frame_keeps_size_and_colours_of_a_picture(size: tuple[int, int]) -> None:
    picture = smooth(*size)
    frame = frame_from_bgr(picture, NOW, 0.0)
    assert (frame.width, frame.height) == size
    assert frame.u.shape == ((size[1] + 1) // 2, (size[0] + 1) // 2)
    back = bgr_from_frame(frame)
    assert back.shape == picture.shape
    assert np.abs(back.astype(int) - picture).max() <= 8


@pytest.mark.parametrize("size", [(64, 48), (63, 47)])
def test_packed_i420_is_the_same_frame_again(size: tuple[int, int]) -> None:
    frame = frame_from_bgr(smooth(*size), NOW, 0.0)
    data = pack_i420(frame)
    assert len(data) == i420_length(*size)
    again = frame_from_i420(data, *size, NOW, 0.0)
    assert np.array_equal(again.y, frame.y)
    assert np.array_equal(again.u, frame.u)
    assert np.array_equal(again.v, frame.v)


def test_rgb24_means_red_first() -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    frame = frame_from_rgb24(red.tobytes(), 4, 4, NOW, 0.0)
    assert bgr_from_frame(frame)[0, 0].tolist() == pytest.approx([0, 0, 255], abs=3)


def test_wrong_byte_count_says_what_came_and_what_is_expected() -> None:
    with pytest.raises(BadPicture, match="got 100 bytes for 640x360 I420, expected 345600"):
        frame_from_i420(bytes(100), 640, 360, NOW, 0.0)
    with pytest.raises(BadPicture, match="got 100 bytes for 640x360 RGB24, expected 691200"):
        frame_from_rgb24(bytes(100), 640, 360, NOW, 0.0)


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8", b"RIFF\4\0\0\0WAVE", b"\0\0\0\x14ftypisom"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(BadPicture, match=f"got {len(data)} bytes that are no picture, expected one of JPEG, PNG, WEBP"):
        decode_bgr(data, 10**6)


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\4\0\0\0WEBP"])
def test_a_header_that_is_cut_short_is_refused(data: bytes) -> None:
    with pytest.raises(BadPicture, match="damaged or cut short in its header"):
        decode_bgr(data, 10**6)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_picture_cut_short_is_refused(suffix: str, share: float) -> None:
    whole = encode(room(320, 240), suffix)  # type: ignore[arg-type]  # parametrised over the literals
    assert decode_bgr(whole, 10**6).shape == (240, 320, 3)
    with pytest.raises(BadPicture):
        decode_bgr(whole[: int(len(whole) * share)], 10**6)


def test_a_huge_header_is_refused_before_decoding() -> None:
    with pytest.raises(BadPicture, match="20000x20000 is 400000000 pixels; expected at most 25000000"):
        decode_bgr(png(20_000, 20_000), 25_000_000)
    with pytest.raises(BadPicture, match="6000x6000 is 36000000 pixels; expected at most 25000000"):
        decode_bgr(png(6_000, 6_000), 25_000_000)


def test_a_header_without_pixels_is_refused() -> None:
    with pytest.raises(BadPicture):
        decode_bgr(png(0, 0), 25_000_000)


def jpegs() -> dict[str, bytes]:
    """A 40x24 JPEG, written in every way that has another header."""
    ways: dict[str, dict[str, Any]] = {
        "baseline": {}, "progressive": {"progressive": True}, "restarts": {"restart_marker_blocks": 1},
        "tables of its own": {"optimize": True}, "comment": {"comment": b"hello"},
        "exif": {"exif": b"Exif\0\0" + bytes(40)},
    }  # fmt: skip
    written = {}
    for name, options in ways.items():
        Image.fromarray(room(40, 24)).save(file := io.BytesIO(), "JPEG", **options)
        written[name] = file.getvalue()
    whole = written["baseline"]
    return written | {
        "fill bytes": whole[:2] + b"\xff\xff\xff" + whole[2:],
        "a restart first": whole[:2] + b"\xff\xd0" + whole[2:],
    }


@pytest.mark.parametrize("way", jpegs())
def test_the_size_of_a_jpeg_is_that_of_its_pixels(way: str) -> None:
    """What the header is believed to say and what the decoder makes of it are one: else a limit could be passed by."""
    data = jpegs()[way]
    width, height = read_size(data, 10**6, "image")
    assert (height, width, 3) == decode_bgr(data, 10**6).shape == (24, 40, 3)


@pytest.mark.parametrize("at", range(2, 30))
def test_a_jpeg_cut_in_its_header_is_refused(at: int) -> None:
    with pytest.raises(BadPicture):
        decode_bgr(jpegs()["baseline"][:at], 10**6)


def test_a_jpeg_that_claims_a_huge_size_is_refused_before_decoding() -> None:
    data = jpegs()["baseline"]
    at = data.index(b"\xff\xc0") + 5
    with pytest.raises(BadPicture, match="65535x65535 is 4294836225 pixels; expected at most"):
        decode_bgr(data[:at] + b"\xff" * 4 + data[at + 4 :], 10**6)


def on_its_side(jpeg: bytes) -> bytes:
    """The file with an EXIF header that asks for a quarter turn."""
    tiff = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(tiff) + 2) + tiff + jpeg[2:]


def test_a_jpeg_lying_on_its_side_is_turned_upright() -> None:
    assert decode_bgr(on_its_side(encode(room(40, 20), ".jpg")), 10**6).shape == (40, 20, 3)


@pytest.mark.parametrize(
    ("size", "least", "expected"),
    [
        ((640, 360), None, (640, 360)),
        ((640, 360), 181, (640, 360)),
        ((640, 360), 180, (320, 180)),
        ((641, 361), 180, (321, 181)),
        ((640, 360), 60, (160, 90)),
        ((2000, 1600), 10, (250, 200)),
    ],
)
def test_no_more_of_a_jpeg_is_decoded_than_is_needed(
    size: tuple[int, int], least: int | None, expected: tuple[int, int]
) -> None:
    pixels = np.asarray(cv2.GaussianBlur(room(*size), (0, 0), 4), np.uint8)
    frame = decode_frame(encode(pixels, ".jpg", 95), 10**7, "image", NOW, 0.0, least)
    assert (frame.width, frame.height) == expected
    assert frame.came == size
    small = cv2.resize(pixels, expected, interpolation=cv2.INTER_AREA)
    assert np.abs(bgr_from_frame(frame).astype(int) - small).mean() < 4
    whole = decode_frame(encode(pixels, ".png"), 10**7, "image", NOW, 0.0, least)
    assert (whole.width, whole.height) == whole.came == size


def test_a_small_decoding_of_what_lies_on_its_side_knows_its_size() -> None:
    frame = decode_frame(on_its_side(encode(room(80, 40), ".jpg")), 10**6, "image", NOW, 0.0, 20)
    assert (frame.width, frame.height, frame.came) == (20, 40, (40, 80))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_small_decoding_of_a_picture_cut_short_is_refused(share: float) -> None:
    whole = encode(room(640, 480), ".jpg")
    with pytest.raises(BadPicture, match="640x480 picture that is damaged or cut short"):
        decode_frame(whole[: int(len(whole) * share)], 10**6, "image", NOW, 0.0, 60)


def test_fit_cover_cuts_around_the_middle() -> None:
    picture = np.zeros((100, 300, 3), np.uint8)
    picture[:, 100:200] = 255
    frame = fit_cover(frame_from_bgr(picture, NOW, 0.0), 50, 50)
    assert (frame.width, frame.height) == (50, 50)
    assert frame.y.min() > 200


def test_frames_from_i420_do_not_copy() -> None:
    data = bytes(i420_length(64, 48))
    frame: Frame = frame_from_i420(data, 64, 48, NOW, 0.0)
    assert not frame.y.flags.owndata
    assert not frame.y.flags.writeable
