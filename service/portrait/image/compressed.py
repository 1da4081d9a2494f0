"""Compressed pictures to and from pixels: JPEG, PNG and WebP. A picture is checked before it costs memory."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from portrait.errors import BadPicture
from portrait.image.convert import frame_from_bgr
from portrait.image.frame import Frame, Plane, Timestamp, check_size

FORMATS = ("JPEG", "PNG", "WEBP")
"""The compressed formats taken; named in every refusal."""

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
JPEG_FRAMES = (0xC0, 0xC1, 0xC2)
JPEG_TABLES = (0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE)
"""Markers (ITU-T T.81, table B.1): of a frame's header (baseline, extended, progressive), and of the segments usual
before one. All have a length."""

PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"

MOST_CHUNKS = 2**16
"""Of a PNG; encoders make one for each 8 KB or more."""

DECODINGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
"""How many times smaller a picture can be decoded: JPEG's transform of 8x8 pixels has these sizes, too."""

PictureFormat = Literal[".jpg", ".png", ".webp"]


def read_size(data: bytes, max_pixels: int, field: str) -> tuple[int, int]:
    """(width, height) as the header says, without decoding.

    Raises:
        BadPicture: not a picture of the formats taken, or one so large that the library will not look at it.
    """
    if (size := _jpeg_size(data)) is not None:
        return size
    try:
        # Pillow warns about large headers; the limit is ours and is checked by the caller.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as header:
                width, height = header.size
                return width, height
    except Image.DecompressionBombError as error:
        raise BadPicture(field, f"{error}; expected at most {max_pixels} pixels") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        kinds = ", ".join(FORMATS)
        raise BadPicture(field, f"{len(data)} bytes that are no picture; expected one of {kinds}") from error


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG's frame header (ITU-T T.81, B.2.2); None where the way to it is in the least unusual.

    Pillow, which then decides, takes twenty times as long: as much as the resizing of a small frame.
    """
    at = len(JPEG_START)
    while data.startswith(JPEG_START) and data[at : at + 1] == b"\xff" and len(data) >= at + 9:
        marker = data[at + 1]
        if marker in JPEG_FRAMES:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        if marker not in JPEG_TABLES:
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def decode_bgr(data: bytes, max_pixels: int, field: str = "image") -> Plane:
    """(H,W,3) uint8 BGR of a compressed picture, turned upright as its EXIF orientation says.

    Raises:
        BadPicture: not a picture, cut short, or larger than `max_pixels` (found out before decoding).
    """
    return _decode(data, _read_checked(data, max_pixels, field), 1, field)


def decode_frame(
    data: bytes, max_pixels: int, field: str, timestamp: Timestamp, arrived: float, least: int | None = None
) -> Frame:
    """A Frame of a compressed picture, as `decode_bgr`; of a JPEG no more than is needed.

    `least` is how many pixels each side needs, None all of them: a larger JPEG is decoded at a half, a quarter or an
    eighth of its size, which spares the transform and the colours of pixels that would be averaged away.

    Raises:
        BadPicture: as `decode_bgr`.
    """
    width, height = _read_checked(data, max_pixels, field)
    reduction = 1
    if least is not None and data.startswith(JPEG_START):
        reduction = max((by for by in DECODINGS if min(width, height) >= by * least), default=1)
    pixels = _decode(data, (width, height), reduction, field)
    frame = frame_from_bgr(pixels, timestamp, arrived)
    if reduction == 1:
        return frame
    lying = (pixels.shape[1] > pixels.shape[0]) != (width > height)
    return replace(frame, full_size=(height, width) if lying else (width, height))


def _read_checked(data: bytes, max_pixels: int, field: str) -> tuple[int, int]:
    width, height = read_size(data, max_pixels, field)
    check_size(width, height, max_pixels, field)
    if data.startswith(PNG_START):
        _check_chunks(data, field)
    return width, height


def _check_chunks(data: bytes, field: str) -> None:
    """Refuse a PNG with a chunk that is longer than what is left (PNG, section 5.3).

    OpenCV makes room for whatever length a chunk says, up to 4 GB, and only then looks whether it is there.
    """
    at, frame = len(PNG_START), 12  # a length, a name and a checksum around each
    for _ in range(MOST_CHUNKS):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        at += frame + length
        if length and at > len(data):
            raise BadPicture(field, f"a PNG that is damaged or cut short: a chunk of {length} bytes in {len(data)}")
        if name == PNG_END or at >= len(data):
            return
    raise BadPicture(field, f"a PNG of more than {MOST_CHUNKS} chunks")


def _decode(data: bytes, size: tuple[int, int], reduction: int, field: str) -> Plane:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), DECODINGS[reduction])
    if pixels is None or _cut_short(data):
        raise BadPicture(field, f"a {size[0]}x{size[1]} picture that is damaged or cut short after {len(data)} bytes")
    return np.asarray(pixels, np.uint8)


def _cut_short(data: bytes) -> bool:
    """Whether a JPEG lacks its end: some builds of OpenCV fill the missing part with grey and report success.

    The end-of-image marker cannot occur inside entropy-coded data (ITU-T T.81, B.1.1.5); a preview in the header ends
    with one too, but lies before the last start of scan.
    """
    if not data.startswith(JPEG_START) or data.endswith(JPEG_END):
        return False  # looking for the markers costs a twentieth of decoding
    return data.rfind(JPEG_END) < data.rfind(b"\xff\xda")


def encode(pixels: Plane, suffix: PictureFormat, quality: int = 90) -> bytes:
    """`pixels` (grey, BGR or BGRA) as a compressed picture; JPEG drops the alpha."""
    parameters: Sequence[int] = {
        ".jpg": (cv2.IMWRITE_JPEG_QUALITY, quality),
        ".webp": (cv2.IMWRITE_WEBP_QUALITY, quality),
        ".png": (cv2.IMWRITE_PNG_COMPRESSION, 3),
    }[suffix]
    if suffix == ".jpg" and pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2BGR), np.uint8)
    done, data = cv2.imencode(suffix, pixels, parameters)
    if not done:
        raise BadPicture("image", f"{pixels.shape[1]}x{pixels.shape[0]} cannot be written as {suffix}")
    return data.tobytes()
