"""The pictures and films people may put behind themselves."""

import threading
from fractions import Fraction
from pathlib import Path
from weakref import WeakValueDictionary

import cv2
import numpy as np

from portrait.errors import BadOption, BadPicture
from portrait.film import Film
from portrait.films import is_film, load_film
from portrait.frame import Frame, Timestamp
from portrait.pictures import bgr_from_frame, decode_bgr, encode, frame_from_bgr

EMBEDDED = Path(__file__).parent / "scenes"
PICTURES = (".jpg", ".jpeg", ".png", ".webp")
"""Suffixes, in small letters or capitals. What a file is its bytes say."""

MAX_PIXELS = 25_000_000
"""Of a background as it comes; it is kept at no more than KEPT_SIDE on the longer side."""

KEPT_SIDE = 1920

STILL_SIDE = 480
"""Of the longer side of what people choose by."""


class Backgrounds:
    """Embedded pictures, and pictures and films of one more folder, by the names of their files.

    A film is decoded when the first session asks for it, shared with those that follow, and given back with the last.
    """

    def __init__(self, folder: Path | None = None) -> None:
        folders = [EMBEDDED] if folder is None else [EMBEDDED, folder]
        files = (path for place in folders for path in sorted(place.iterdir()))
        self._paths = {path.stem: path for path in files if path.suffix.lower() in PICTURES or is_film(path)}
        self._films: WeakValueDictionary[Path, Film] = WeakValueDictionary()
        self._decoding = threading.Lock()

    def take_over(self, other: "Backgrounds") -> None:
        """Have the pictures of `other` from now on."""
        self._paths, self._films = other._paths, other._films

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

    def pick(self, name: str) -> Frame | Film:
        """The picture or film of that name, decoded: seconds, for a long film. From any thread.

        Raises:
            BadOption: there is none.
            BadPicture: its file cannot be used.
        """
        path = self.path(name)
        try:
            return self._film(path) if is_film(path) else load_background(path.read_bytes())
        except OSError as error:  # it has gone since the folder was looked at
            raise BadPicture("background", f"{path.name} cannot be read: {error.strerror}") from error

    def still(self, name: str) -> bytes:
        """A small JPEG of that background, a film's first picture, for people to choose by.

        Raises:
            BadOption: there is none.
            BadPicture: its file cannot be used.
        """
        background = self.pick(name)
        frame = background.frames[0] if isinstance(background, Film) else background
        pixels = bgr_from_frame(frame)
        scale = min(1.0, STILL_SIDE / max(pixels.shape[:2]))
        size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
        return encode(np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8), ".jpg")

    def _film(self, path: Path) -> Film:
        with self._decoding:
            film = self._films.get(path)
            if film is None:
                film = self._films[path] = load_film(path)
            return film


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
