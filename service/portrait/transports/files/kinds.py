"""Kinds: whether a file is a still or a video, by its first bytes; by its suffix only where the bytes do not tell."""

from pathlib import Path

from portrait.image.compressed import PictureFormat
from portrait.transports.files.places import PIPE, is_live, standard_input

STILLS: dict[str, PictureFormat] = {
    ".jpg": ".jpg", ".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".png": ".png", ".webp": ".webp",
}  # fmt: skip
"""Suffixes of stills, with the format that is written under each."""

OTHER_STILLS = (".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")
"""Suffixes of stills that can be read at most."""

VIDEOS = (
    ".mp4", ".mov", ".mkv", ".m4v", ".avi", ".webm", ".ts", ".y4m", ".wmv", ".asf", ".flv", ".3gp", ".3g2", ".mpg",
    ".mpeg", ".m2ts", ".mts", ".vob", ".ogv", ".gif",
)  # fmt: skip
"""Suffixes of videos."""

HEAD = 16
"""Bytes that tell the kind."""

STILL_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
"""ISO base media files that hold pictures (ISO/IEC 23008-12, 10.2)."""

VIDEO, STILL, ANIMATION = "video", "still", "animation"
"""The kinds. An animation (a GIF) is a video, or a still where a still is to be written."""


def kind_of(place: str) -> str:
    """The kind of a source; "" for what is neither. Reads a file's first bytes, or looks ahead into standard input."""
    if is_live(place) and place != PIPE:
        return VIDEO
    suffix = "" if place == PIPE else Path(place).suffix.lower()
    return _kind_by_bytes(_head(place)) or _kind_by_suffix(suffix) or (VIDEO if place == PIPE else "")


def _head(place: str) -> bytes:
    if place == PIPE:
        return standard_input().peek(HEAD)[:HEAD]
    try:
        with Path(place).open("rb") as file:
            return file.read(HEAD)
    except OSError:  # told when the job opens it
        return b""


def _kind_by_bytes(head: bytes) -> str:
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*")):
        return STILL
    if head.startswith(b"RIFF"):
        return {b"WEBP": STILL, b"AVI ": VIDEO}.get(head[8:12], "")
    if head.startswith(b"BM") and head[6:10] == bytes(4):  # reserved in every BMP
        return STILL
    if head.startswith((b"GIF87a", b"GIF89a")):
        return ANIMATION
    if head[4:8] == b"ftyp":
        return STILL if head[8:12] in STILL_BRANDS else VIDEO
    return VIDEO if head.startswith((b"\x1aE\xdf\xa3", b"YUV4MPEG2", b"FLV\x01", b"0&\xb2u\x8ef\xcf\x11")) else ""


def _kind_by_suffix(suffix: str) -> str:
    if suffix in STILLS or suffix in OTHER_STILLS:
        return STILL
    return VIDEO if suffix in VIDEOS else ""
