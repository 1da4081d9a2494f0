"""Compressed pictures to and from frames: JPEG, PNG and WebP, shown as a viewer shows them.

A Frame made here is upright (EXIF), in sRGB (ICC profiles), 8 bits deep, and holds nothing of what was erased. A
picture is checked before it costs memory, and a large one is converted in strips: no copy of all its pixels is made.
"""

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import av
import cv2
import numpy as np
from PIL import Image, ImageCms

from portrait.errors import BadPicture
from portrait.image.av_frame import frame_from_av
from portrait.image.convert import frame_from_bgr, frame_from_rows, opaque_pixels_of, pixels_of, turned
from portrait.image.frame import Frame, Plane, Timestamp, check_size
from portrait.image.headers import EXIF, JPEG_END, JPEG_SCAN, Header, Jpeg, WebP, picture_format, read_header, webp_file
from portrait.image.png import encode_png

DECODINGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
"""How many times smaller a picture can be decoded: JPEG's transform of 8x8 pixels has these sizes, too."""

ORIENTATION = 0x0112
"""The EXIF tag: how the picture is to be turned, 1 (not at all) to 8."""

SAME_LEVELS = 2
"""By how much a profile's colours may differ from sRGB's and need no conversion."""

DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    IndexError,
    OverflowError,
    Image.DecompressionBombError,
    av.error.FFmpegError,
)
"""What Pillow and FFmpeg raise for pictures that are damaged or cut short."""

QUALITIES = {".jpg": cv2.IMWRITE_JPEG_QUALITY, ".webp": cv2.IMWRITE_WEBP_QUALITY}
"""How OpenCV calls the quality of a format."""

PictureFormat = Literal[".jpg", ".png", ".webp"]


def read_size(data: bytes, max_pixels: int, field: str) -> tuple[int, int]:
    """(width, height) as the header says, before any turn; nothing is decoded.

    Raises:
        BadPicture: no JPEG, PNG or WebP file, cut short within its header, or larger than `max_pixels`.
    """
    header = _read_header(data, field)
    check_size(header.width, header.height, max_pixels, field)
    return header.width, header.height


def decode_frame(
    data: bytes, max_pixels: int, field: str, timestamp: Timestamp, arrived: float, least: int | None = None
) -> Frame:
    """A Frame of a JPEG, PNG or WebP file, with its alpha if it has one; the first picture of an animation.

    `least` is for a Frame that only a network sees: how many pixels each side needs, None all of them. A larger JPEG is
    decoded at a half, a quarter or an eighth of its size, which spares the transform and the colours of pixels that
    would be averaged away, and its profile is left out of account.

    Raises:
        BadPicture: another format, damaged or cut short, or larger than `max_pixels` (found out before decoding).
    """
    header = _read_header(data, field)
    check_size(header.width, header.height, max_pixels, field)
    try:
        frame, orientation = _decode(data, header, least, timestamp, arrived)
    except DAMAGED as error:
        raise _damaged(data, header, field) from error
    return turned(frame, orientation)


def _read_header(data: bytes, field: str) -> Header:
    header = read_header(data, field)
    if not isinstance(header, Jpeg) or header.usual:
        return header
    try:
        with _opened(data) as image:
            return replace(header, width=image.width, height=image.height)
    except DAMAGED as error:
        raise BadPicture(field, "got a JPEG picture that is damaged or cut short in its header") from error


def _damaged(data: bytes, header: Header, field: str) -> BadPicture:
    size = f"{header.width}x{header.height}"
    return BadPicture(field, f"got a {size} picture that is damaged or cut short after {len(data)} bytes")


def _decode(data: bytes, header: Header, least: int | None, timestamp: Timestamp, arrived: float) -> tuple[Frame, int]:
    """The picture as it lies in the file, and its orientation."""
    if isinstance(header, WebP):
        return _decode_webp(header, timestamp, arrived), _orientation(header.exif)
    if not isinstance(header, Jpeg):
        with _opened(data) as image:
            return _decode_image(image, timestamp, arrived)
    data = _whole_jpeg(data)
    # OpenCV decodes JPEG at smaller sizes, but without profiles and inks.
    converted = least is None and _to_srgb(header.profile, "RGB") is not None
    if header.usual and header.components in (1, 3) and not converted:
        return _decode_jpeg(data, header, least, timestamp, arrived), _orientation(header.exif)
    with _opened(data) as image:
        return _decode_image(image, timestamp, arrived)


def _decode_jpeg(data: bytes, header: Jpeg, least: int | None, timestamp: Timestamp, arrived: float) -> Frame:
    width, height, reduction = header.width, header.height, 1
    if least is not None:
        reduction = max((by for by in DECODINGS if min(width, height) >= by * least), default=1)
    flags = DECODINGS[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        raise ValueError("OpenCV cannot decode it")
    frame = frame_from_bgr(np.asarray(pixels, np.uint8), timestamp, arrived)
    return frame if reduction == 1 else replace(frame, full_size=(width, height))


def _whole_jpeg(data: bytes) -> bytes:
    """A JPEG with its end-of-image marker, which is added where it lacks and every row is there.

    The marker cannot occur inside entropy-coded data (ITU-T T.81, B.1.1.5); a preview in the header ends with one too,
    but lies before the last start of scan. Some builds of OpenCV fill what is missing with grey and report success, so
    FFmpeg tells: with `explode` it refuses a scan that is not whole.

    Raises:
        FFmpegError: it is cut short.
    """
    if data.endswith(JPEG_END) or data.rfind(JPEG_END) > data.rfind(JPEG_SCAN):
        return data  # looking for the markers costs a twentieth of decoding
    _decode_av("mjpeg", data, err_detect="explode")
    return data + JPEG_END


def _decode_av(codec: str, data: bytes, **options: str) -> av.VideoFrame:
    """The picture that FFmpeg makes of a file."""
    context = av.CodecContext.create(codec, "r")
    assert isinstance(context, av.VideoCodecContext)
    context.thread_count, context.options = 1, options
    for picture in (*context.decode(av.Packet(data)), *context.decode(None)):
        if isinstance(picture, av.VideoFrame):
            return picture
    raise ValueError("no picture")


def _decode_webp(header: WebP, timestamp: Timestamp, arrived: float) -> Frame:
    """By FFmpeg, which gives a lossy picture's own planes and needs a tenth of the memory that libwebp does."""
    most = (header.width + 127) * (header.height + 127)  # FFmpeg counts whole blocks
    picture = _decode_av("webp", webp_file(header), max_pixels=str(most))
    if (picture.width, picture.height) != (header.width, header.height):
        raise ValueError("the picture has another size than its header says")
    transform = _to_srgb(header.profile, "RGB")
    if picture.format.name == "argb":
        packed = np.frombuffer(memoryview(picture.planes[0]), np.uint8).reshape(picture.height, -1, 4)

        def rows(top: int, bottom: int) -> Plane:
            argb = packed[top:bottom, : picture.width]
            return _recolored(np.ascontiguousarray(argb[..., (1, 2, 3, 0)]), transform)

        return frame_from_rows(rows, picture.width, picture.height, timestamp, arrived)
    picture.pts, picture.time_base = timestamp.ticks, timestamp.time_base
    frame = frame_from_av(picture, most, arrived)
    if transform is None:
        return frame

    def strip(top: int, bottom: int) -> Plane:
        pixels = pixels_of(frame, top, bottom)
        return _recolored(np.ascontiguousarray(pixels[..., (2, 1, 0, 3)[: pixels.shape[2]]]), transform)

    return frame_from_rows(strip, frame.width, frame.height, timestamp, arrived)


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Pillow warns of large headers, whose limit is ours, and of damaged EXIF, which is ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _opened(data: bytes) -> Image.Image:
    with _no_warnings():
        return Image.open(io.BytesIO(data), formats=(picture_format(data) or "",))


def _decode_image(image: Image.Image, timestamp: Timestamp, arrived: float) -> tuple[Frame, int]:
    """What Pillow decodes, and its orientation: every kind of PNG, and JPEGs with profiles or inks."""
    with _no_warnings():
        image.load()
    mode = {"1": "L", "P": "RGB", "PA": "RGBA", "I": "I;16"}.get(image.mode, image.mode)
    if image.has_transparency_data:
        mode = {"L": "LA", "RGB": "RGBA"}.get(mode, mode)
    opaque = {"LA": "L", "RGBA": "RGB", "I;16": "L"}.get(mode, mode)
    transform = _to_srgb(image.info.get("icc_profile", b""), opaque)

    def rows(top: int, bottom: int) -> Plane:
        part = image.crop((0, top, image.width, bottom))
        if mode == "I;16":
            part = Image.fromarray(np.asarray(np.asarray(part) >> 8, np.uint8))
        elif part.mode != mode:
            part = part.convert(mode)
        plain = part if mode in (opaque, "I;16") else part.convert(opaque)
        shown = plain.convert("RGB") if transform is None else _applied(plain, transform)
        if mode in ("LA", "RGBA"):
            shown.putalpha(part.getchannel("A"))
        return np.array(shown, np.uint8)

    return frame_from_rows(rows, image.width, image.height, timestamp, arrived), _orientation(
        image.info.get("exif", b"")
    )


def _orientation(exif: bytes) -> int:
    """How the picture is to be turned, 1 to 8; 1 where EXIF does not say, or is damaged."""
    if not exif:
        return 1
    tags = Image.Exif()
    try:
        with _no_warnings():
            tags.load(exif if exif.startswith(EXIF) else EXIF + exif)
            return int(tags.get(ORIENTATION, 1))
    except (*DAMAGED, TypeError, struct.error):
        return 1


def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From the colours of an ICC profile to sRGB; None where they are the same, and where the profile is of no use.

    Viewers show a picture with a broken profile, or with one of another kind of pixels, as if it had none.
    """
    if not profile:
        return None
    try:
        source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if mode == "RGB":
        levels = np.linspace(0, 255, 6).astype(np.uint8)
        colors = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
        made = np.asarray(_applied(Image.fromarray(colors), transform), np.int16)
        if np.abs(made - colors).max() <= SAME_LEVELS:
            return None
    return transform


def _recolored(rows: Plane, transform: ImageCms.ImageCmsTransform | None) -> Plane:
    """RGB or RGBA rows in sRGB."""
    if transform is not None:
        rgb = np.ascontiguousarray(rows[..., :3])
        rows[..., :3] = np.asarray(_applied(Image.fromarray(rgb), transform), np.uint8)
    return rows


def _applied(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    made = ImageCms.applyTransform(image, transform)
    assert made is not None  # as the picture is not changed in place
    return made


def encode(picture: Plane | Frame, suffix: PictureFormat, quality: int = 90) -> bytes:
    """A grey, BGR or BGRA picture, or a Frame, as a compressed picture; JPEG drops the alpha."""
    if suffix == ".png":
        return encode_png(picture)
    if suffix == ".jpg":
        pixels = opaque_pixels_of(picture) if isinstance(picture, Frame) else picture
        if pixels.ndim == 3 and pixels.shape[2] == 4:
            pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2BGR), np.uint8)
    else:
        pixels = pixels_of(picture) if isinstance(picture, Frame) else picture
    size = f"{pixels.shape[1]}x{pixels.shape[0]}"
    del picture  # a large Frame's planes are not needed while its pixels are encoded
    done, data = cv2.imencode(suffix, pixels, (QUALITIES[suffix], quality))
    if not done:
        raise BadPicture("image", f"got a result of {size}, which cannot be written as {suffix}")
    del pixels
    return data.tobytes()
