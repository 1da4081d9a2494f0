"""The pictures people may put behind themselves."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from portrait.errors import BadOption
from portrait.frame import Frame, Timestamp
from portrait.pictures import decode_bgr, frame_from_bgr

EMBEDDED = Path(__file__).parent / "scenes"
SUFFIXES = (".jpg", ".png", ".webp")

MAX_PIXELS = 25_000_000
"""Of a background as it comes; it is kept at no more than KEPT_SIDE on the longer side."""

KEPT_SIDE = 1920


class Backgrounds:
    """Embedded pictures and those of one more folder, by the names of their files."""

    def __init__(self, folder: Path | None = None) -> None:
        folders = [EMBEDDED] if folder is None else [EMBEDDED, folder]
        self._paths = {
            path.stem: path for place in folders for path in sorted(place.iterdir()) if path.suffix in SUFFIXES
        }

    def take_over(self, other: "Backgrounds") -> None:
        """Have the pictures of `other` from now on."""
        self._paths = other._paths

    @property
    def names(self) -> list[str]:
        """The names there are."""
        return list(self._paths)

    def path(self, name: str) -> Path:
        """The file of that name.

        Raises:
            BadOption: there is none.
        """
        try:
            return self._paths[name]
        except KeyError:
            raise BadOption("background", f"unknown background {name!r}; expected one of {self.names}") from None

    def pick(self, name: str) -> Frame:
        """The picture of that name, decoded.

        Raises:
            BadOption: there is none.
        """
        return load_background(self.path(name).read_bytes())


def load_background(data: bytes) -> Frame:
    """A background of the bytes of a JPEG, PNG or WebP file.

    Raises:
        BadPicture: not a picture, or too large a one.
    """
    pixels = decode_bgr(data, MAX_PIXELS, "background")
    scale = KEPT_SIDE / max(pixels.shape[:2])
    if scale < 1:
        size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return frame_from_bgr(pixels, Timestamp(0, Fraction(1)), 0.0)
