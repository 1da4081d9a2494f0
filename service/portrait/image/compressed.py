"""Compressed and RGB pictures to and from Frame. Everything that came over a wire is checked before it costs memory."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from portrait.errors import BadPicture
from portrait.image.frame import Frame, Plane, Timestamp, chroma_size, i420_length, split_i420

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


def check_size(width: int, height: int, max_pixels: int, field: str) -> None:
    """Refuse a picture without pixels or with too many.

    Raises:
        BadPicture: says the size and the limit.
    """
    if width < 1 or height < 1:
        raise BadPicture(field, f"the size is {width}x{height}; expected at least 1x1")
    if width * height > max_pixels:
        raise BadPicture(field, f"{width}x{height} is {width * height} pixels; expected at most {max_pixels}")


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


def frame_from_bgr(pixels: Plane, timestamp: Timestamp, arrived: float) -> Frame:
    """A Frame of (H,W,3) uint8 BGR; odd sizes too."""
    return _convert(pixels, cv2.COLOR_BGR2YUV_I420, timestamp, arrived)


def _convert(pixels: Plane, code: int, timestamp: Timestamp, arrived: float) -> Frame:
    height, width = pixels.shape[:2]
    if height % 2 or width % 2:
        # OpenCV converts even sizes only: repeat the last row or column, then cut the planes back.
        border = cv2.copyMakeBorder(pixels, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        pixels = np.asarray(border, np.uint8)
    packed = np.asarray(cv2.cvtColor(pixels, code), np.uint8)
    y, u, v = split_i420(packed.reshape(-1), pixels.shape[1], pixels.shape[0])
    return Frame(y[:height, :width], u, v, timestamp, arrived)


def bgr_from_frame(frame: Frame) -> Plane:
    """(H,W,3) uint8 BGR of a Frame; odd sizes too."""
    width, height = frame.width + frame.width % 2, frame.height + frame.height % 2
    packed: Plane = np.empty(i420_length(width, height), np.uint8)
    y, u, v = split_i420(packed, width, height)
    y[: frame.height, : frame.width] = frame.y
    y[frame.height :, : frame.width] = frame.y[-1]
    y[:, frame.width :] = y[:, frame.width - 1 : frame.width]
    u[:], v[:] = frame.u, frame.v
    pixels = cv2.cvtColor(packed.reshape(height * 3 // 2, width), cv2.COLOR_YUV2BGR_I420)
    return np.asarray(pixels[: frame.height, : frame.width], np.uint8)


def frame_from_i420(data: bytes, width: int, height: int, timestamp: Timestamp, arrived: float) -> Frame:
    """A Frame over packed I420 bytes, without copying them.

    Raises:
        BadPicture: the byte count does not fit the size.
    """
    expected = i420_length(width, height)
    if len(data) != expected:
        raise BadPicture("data", f"{len(data)} bytes for {width}x{height} I420; expected {expected}")
    return Frame(*split_i420(np.frombuffer(data, np.uint8), width, height), timestamp, arrived)


def frame_from_rgb24(data: bytes, width: int, height: int, timestamp: Timestamp, arrived: float) -> Frame:
    """A Frame of packed 8-bit RGB bytes.

    Raises:
        BadPicture: the byte count does not fit the size.
    """
    expected = width * height * 3
    if len(data) != expected:
        raise BadPicture("data", f"{len(data)} bytes for {width}x{height} RGB24; expected {expected}")
    rgb = np.frombuffer(data, np.uint8).reshape(height, width, 3)
    return _convert(rgb, cv2.COLOR_RGB2YUV_I420, timestamp, arrived)


def rgba_from_frame(frame: Frame) -> Plane:
    """(H,W,4) uint8 BGRA of a Frame; opaque where it has no alpha plane, all zero where that is zero."""
    pixels = cv2.cvtColor(bgr_from_frame(frame), cv2.COLOR_BGR2BGRA)
    if frame.alpha is not None:
        pixels[..., 3] = frame.alpha
        # A chroma sample covers four pixels: beside the person it still colours the hidden ones.
        pixels[frame.alpha == 0] = 0
    return np.asarray(pixels, np.uint8)


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


def fit_cover(frame: Frame, width: int, height: int) -> Frame:
    """`frame` scaled to cover (width, height) and cut to it around its middle, plane by plane."""
    scale = max(width / frame.width, height / frame.height)
    kept = width / scale / frame.width, height / scale / frame.height
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    sizes = (width, height), chroma_size(width, height), chroma_size(width, height)
    planes = (
        cv2.resize(_middle(plane, *kept), size, interpolation=method)
        for plane, size in zip((frame.y, frame.u, frame.v), sizes, strict=True)
    )
    y, u, v = (np.asarray(plane, np.uint8) for plane in planes)
    return frame.with_planes(y, u, v)


def _middle(plane: Plane, across: float, down: float) -> Plane:
    """So much of a plane's width and height."""
    height, width = plane.shape
    columns, rows = max(1, round(width * across)), max(1, round(height * down))
    left, top = (width - columns) // 2, (height - rows) // 2
    return plane[top : top + rows, left : left + columns]
