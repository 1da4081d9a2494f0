"""One picture in, its result out."""

from fractions import Fraction
from pathlib import Path

from portrait.errors import BadOption
from portrait.image.compressed import PictureFormat, decode_bgr, encode
from portrait.image.convert import bgr_from_frame, bgra_from_frame, frame_from_bgr
from portrait.image.frame import Timestamp
from portrait.transports.files.backend import Work

STILLS: dict[str, PictureFormat] = {".jpg": ".jpg", ".jpeg": ".jpg", ".png": ".png", ".webp": ".webp"}
MAX_PIXELS = 2**26


def process_still(source: Path, target: Path, work: Work) -> int:
    """One picture. Returns the number of frames, 1. The target's suffix is one that `check_suffix` lets pass.

    Raises:
        BadPicture: the source is no picture.
    """
    frame = frame_from_bgr(decode_bgr(source.read_bytes(), MAX_PIXELS), Timestamp(0, Fraction(1)), 0.0)
    result = work(frame)
    pixels = bgr_from_frame(result) if result.alpha is None else bgra_from_frame(result)
    target.write_bytes(encode(pixels, STILLS[target.suffix.lower()]))
    return 1


def check_suffix(target: Path, mode: str) -> None:
    """Refuse a name that cannot hold a still of the mode.

    Raises:
        BadOption: the suffix is unknown, or JPEG for a cutout.
    """
    suffix = STILLS.get(target.suffix.lower())
    if suffix is None or (mode == "cutout" and suffix == ".jpg"):
        expected = ".png or .webp" if mode == "cutout" else ", ".join(STILLS)
        raise BadOption("OUT", f"{target.name} cannot hold the result; expected a name in {expected}")
