"""Stills: one picture in, its result out."""

import io
from fractions import Fraction
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from portrait.core.compositors import GREY_MODES
from portrait.errors import BadOption, BadPicture
from portrait.image.compressed import PictureFormat, decode_frame, encode
from portrait.image.convert import pixels_of
from portrait.image.frame import Timestamp
from portrait.transports.files.backend import Work
from portrait.transports.files.kinds import STILLS
from portrait.transports.files.places import PIPE, standard_input

MAX_PIXELS = 2**26

DECODED = (b"\xff\xd8", b"\x89PNG", b"RIFF")
"""How the formats begin that are decoded as they are: JPEG, PNG and WebP."""

EXPECTED = "JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF"


def process_still(source: str, target: Path, work: Work, mode: str) -> None:
    """The picture at `source`, worked on, written to `target`, whose suffix `check_suffix` lets pass.

    Raises:
        BadPicture: the source is no picture.
    """
    data = standard_input().read() if source == PIPE else Path(source).read_bytes()
    data = data if data.startswith(DECODED) else _as_png(data)
    [result] = work([decode_frame(data, MAX_PIXELS, "image", Timestamp(0, Fraction(1)), 0.0)])
    shown = pixels_of(result)
    target.write_bytes(encode(shown[..., 0] if mode in GREY_MODES else shown, _suffix(target)))


def _as_png(data: bytes) -> bytes:
    """A picture in another format than is decoded elsewhere, the first one of several, as a PNG.

    Raises:
        BadPicture: none that is known, or too large.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise BadPicture("image", f"got {picture.width}x{picture.height}, expected at most {MAX_PIXELS} pixels")
            upright = ImageOps.exif_transpose(picture)
            shown = upright if upright.mode in ("L", "RGB", "RGBA", "I;16") else upright.convert("RGBA")
            png = io.BytesIO()
            # A profile of CMYK or of a palette's own means nothing of RGB.
            profile = picture.info.get("icc_profile") if shown is upright else None
            shown.save(png, "PNG", compress_level=1, icc_profile=profile)
            return png.getvalue()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise BadPicture("image", f"got {len(data)} bytes that are no picture, expected {EXPECTED}") from error


def check_suffix(target: Path, mode: str) -> None:
    """Refuse a name that cannot hold a still of the mode.

    Raises:
        BadOption: the suffix is unknown, or JPEG for a cutout.
    """
    suffix = STILLS.get(target.suffix.lower())
    if suffix is None or (mode == "cutout" and suffix == ".jpg"):
        expected = ".png or .webp" if mode == "cutout" else ", ".join(STILLS)
        raise BadOption("OUT", f"{target.name} cannot hold the result; expected a name in {expected}")


def _suffix(target: Path) -> PictureFormat:
    return STILLS[target.suffix.lower()]
