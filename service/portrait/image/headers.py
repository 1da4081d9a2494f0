"""What the header of a compressed picture says, read without a decoder."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from portrait.errors import BadPicture

T = TypeVar("T")

FORMATS = ("JPEG", "PNG", "WEBP")
"""The formats taken; named in every refusal."""

JPEG_START, JPEG_END, JPEG_SCAN = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"
JPEG_FRAMES = (0xC0, 0xC1, 0xC2)
JPEG_TABLES = (0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE)
"""Markers (ITU-T T.81, table B.1): of a frame's header (baseline, extended, progressive), and of the segments usual
before one. All have a length."""
JPEG_SEGMENT = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
"""A marker with a length, or the end: none of these occurs within a scan's data (B.1.1.5)."""

ICC, EXIF = b"ICC_PROFILE\0", b"Exif\0\0"
PNG_START = b"\x89PNG\r\n\x1a\n"

MOST_SCANS = 100
"""Scans of a JPEG. Encoders write ten or so (mozjpeg up to 64), and a decoder goes through the whole picture for each:
60 bytes of a scan that changes nothing cost 16 ms at 25 megapixels."""

FREE_PARTS, BYTES_PER_PART = 1000, 1024
"""A file has FREE_PARTS segments or chunks at most, and one more for each BYTES_PER_PART of it. They are read one by
one, here and in Pillow: 32 MB of empty ones would take seconds."""

OTHERS: Mapping[bytes, str] = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\1\0": "ICO",
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"qoif": "QOI",
    b"<svg": "SVG",
}
"""By first bytes: pictures that are not taken, to be named in the refusal."""

BRANDS: Mapping[bytes, str] = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"hevc": "HEIC",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
}
"""By the brand of a file of ISO/IEC 14496-12."""


@dataclass(frozen=True, slots=True)
class Jpeg:
    """A JPEG's header; `usual` where the way to the size holds nothing but the segments encoders write."""

    width: int
    height: int
    components: int = 3
    exif: bytes = b""
    profile: bytes = b""
    usual: bool = True


@dataclass(frozen=True, slots=True)
class Png:
    """A PNG's header."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class WebP:
    """A WebP's header, and where its picture (an animation's first) lies in the file."""

    width: int
    height: int
    picture: tuple[bytes, bytes]
    """Name and content of its chunk."""
    alpha: bytes = b""
    """Content of the chunk of a lossy picture's alpha."""
    exif: bytes = b""
    profile: bytes = b""


Header: TypeAlias = Jpeg | Png | WebP


def picture_format(data: bytes) -> str | None:
    """The name of the picture format that the first bytes (32 are enough) are of; None: of none that is known."""
    if data.startswith(JPEG_START + b"\xff"):
        return "JPEG"
    if data.startswith(PNG_START):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return BRANDS.get(data[8:12])
    return next((name for start, name in OTHERS.items() if data.startswith(start)), None)


def read_header(data: bytes, field: str) -> Header:
    """The header of a JPEG, PNG or WebP file.

    Raises:
        BadPicture: of another format, which is named where it is known, cut short within its header, or made of more
            parts than any encoder writes.
    """
    name, expected = picture_format(data), ", ".join(FORMATS)
    header: Header | None
    try:
        match name:
            case "JPEG":
                header = _jpeg(data)
            case "PNG":
                header = _png(data)
            case "WEBP":
                header = _webp(data)
            case None:
                raise BadPicture(field, f"got {len(data)} bytes that are no picture, expected one of {expected}")
            case _:
                raise BadPicture(field, f"got a {name} picture, expected one of {expected}")
    except _TooManyParts as error:
        raise BadPicture(field, f"got a {name} picture of {error}") from None
    if header is None:
        raise BadPicture(field, f"got a {name} picture that is damaged or cut short in its header")
    return header


class _TooManyParts(Exception):
    """Says of what there is too much, and how much is expected."""


def _most_parts(data: bytes) -> int:
    return FREE_PARTS + len(data) // BYTES_PER_PART


def _counted(parts: Iterable[T], data: bytes) -> Iterator[T]:
    """The parts of a file, as many as one of its length may have.

    Raises:
        _TooManyParts: there is one more.
    """
    most = _most_parts(data)
    for number, part in enumerate(parts):
        if number == most:
            raise _TooManyParts(f"more than {most} parts in {len(data)} bytes, expected fewer")
        yield part


def _jpeg(data: bytes) -> Jpeg | None:
    """By ITU-T T.81, B.2.2. Libraries differ in how they read an unusual header, so its size is left to one of them."""
    _check_scans(data)
    at, exif = len(JPEG_START), b""
    profile: list[bytes] = []
    while data[at : at + 1] == b"\xff" and len(data) >= at + 10:
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in JPEG_FRAMES:
            height, width = int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
            return Jpeg(width, height, data[at + 9], exif, b"".join(profile))
        if marker not in JPEG_TABLES:
            return Jpeg(0, 0, usual=False)
        content = data[at + 4 : end]
        if marker == 0xE1 and content.startswith(EXIF) and not exif:
            exif = content
        elif marker == 0xE2 and content.startswith(ICC):
            profile.append(content[len(ICC) + 2 :])  # its number and their count; encoders write them in order
        at = end
    return None


def _check_scans(data: bytes) -> None:
    """Go from marker to marker up to the end, as a decoder finds them: past the contents of segments.

    A plain loop, since it runs for every picture of a stream: with generators it takes twice as long.

    Raises:
        _TooManyParts: too many segments, or too many scans among them.
    """
    at, parts, scans, most = len(JPEG_START), 0, 0, _most_parts(data)
    while (found := JPEG_SEGMENT.search(data, at)) is not None and found[0] != JPEG_END:
        parts, scans = parts + 1, scans + (found[0] == JPEG_SCAN)
        if parts > most:
            raise _TooManyParts(f"more than {most} parts in {len(data)} bytes, expected fewer")
        at = found.end()
        at += int.from_bytes(data[at : at + 2], "big")
    if scans > MOST_SCANS:
        raise _TooManyParts(f"{scans} scans, expected at most {MOST_SCANS}")


def _png(data: bytes) -> Png | None:
    """By PNG (W3C), 11.2.1: the first chunk is IHDR."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        return None
    for _ in _counted(_png_ends(data), data):
        pass
    return Png(int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))


def _png_ends(data: bytes) -> Iterator[int]:
    """Where each chunk ends."""
    at = len(PNG_START)
    while at + 12 <= len(data):
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        yield at


def _webp(data: bytes) -> WebP | None:
    """By RFC 9649, section 2."""
    alpha = exif = profile = b""
    picture: tuple[bytes, bytes] | None = None
    size = 0, 0
    for name, content in _counted(_chunks(data, 12), data):
        match name:
            case b"ANMF" if picture is None:
                for inner, what in _counted(_chunks(content, 16), content):
                    if inner == b"ALPH":
                        alpha = what
                    elif inner in (b"VP8 ", b"VP8L"):
                        picture = inner, what
            case b"VP8 " | b"VP8L" if picture is None:
                picture = name, content
            case b"ALPH" if picture is None:
                alpha = content
            case b"ICCP":
                profile = content
            case b"EXIF":
                exif = content
    if picture is None:
        return None
    name, content = picture
    if name == b"VP8L" and len(content) >= 5:
        bits = int.from_bytes(content[1:5], "little")
        size = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif name == b"VP8 " and len(content) >= 10:
        size = int.from_bytes(content[6:8], "little") & 0x3FFF, int.from_bytes(content[8:10], "little") & 0x3FFF
    else:
        return None
    return WebP(*size, picture, alpha, exif, profile)


def _chunks(data: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of RIFF's chunks that are whole."""
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        if end > len(data):
            return
        yield data[at : at + 4], data[at + 8 : end]
        at = end + end % 2


def webp_file(header: WebP) -> bytes:
    """A WebP file of the one picture that `header` was read of: no animation, no profile, nothing after it."""
    name, content = header.picture
    body = _chunk(name, content)
    if header.alpha and name == b"VP8 ":
        sizes = (header.width - 1).to_bytes(3, "little") + (header.height - 1).to_bytes(3, "little")
        body = _chunk(b"VP8X", b"\x10\0\0\0" + sizes) + _chunk(b"ALPH", header.alpha) + body
    return b"RIFF" + (4 + len(body)).to_bytes(4, "little") + b"WEBP" + body


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)
