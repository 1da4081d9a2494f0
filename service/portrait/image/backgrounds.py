"""The pictures and films people may put behind themselves."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from weakref import WeakValueDictionary

import cv2
import numpy as np

from portrait.errors import BadOption, BadPicture
from portrait.image.clip import Clip, first_picture, is_clip, load_clip
from portrait.image.compressed import decode_bgr, encode
from portrait.image.convert import bgr_from_frame, frame_from_bgr
from portrait.image.frame import Frame, Timestamp

EMBEDDED = Path(__file__).parents[1] / "scenes"
PICTURES = (".jpg", ".jpeg", ".png", ".webp")
"""Suffixes, in small letters or capitals. What a file is its bytes say."""

MAX_PIXELS = 25_000_000
"""Of a background as it comes; it is kept at no more than KEPT_SIDE on the longer side."""

KEPT_SIDE = 1920

STILL_SIDE = 480
"""Of the longer side of what people choose by."""

PICTURE_THREADS = 4
"""How many pictures are decoded at once."""


class Backgrounds:
    """Embedded pictures, and pictures and films of one more folder, by the names of their files.

    A film is decoded when the first session asks for it, shared with those that follow, and given back with the last.
    Decoding takes up to seconds. Threads that end with this object do it: the loop's own encode everybody's frames.
    """

    def __init__(self, folder: Path | None = None) -> None:
        folders = [EMBEDDED] if folder is None else [EMBEDDED, folder]
        files = (path for place in folders for path in sorted(place.iterdir()))
        self._paths = {path.stem: path for path in files if path.suffix.lower() in PICTURES or is_clip(path)}
        self._films: WeakValueDictionary[Path, Clip] = WeakValueDictionary()
        self._one_film = ThreadPoolExecutor(1, thread_name_prefix="film")
        self._some_pictures = ThreadPoolExecutor(PICTURE_THREADS, thread_name_prefix="background")

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

    async def pick(self, name: str) -> Frame | Clip:
        """The picture or film of that name, decoded.

        Raises:
            BadOption: there is none.
            BadPicture: its file cannot be used.
        """
        path, loop = self.path(name), asyncio.get_running_loop()
        if is_clip(path):
            return await loop.run_in_executor(self._one_film, self._film, path)
        return await loop.run_in_executor(self._some_pictures, _picture, path)

    async def decode(self, data: bytes) -> Frame:
        """A background that somebody sends: a JPEG, PNG or WebP file.

        Raises:
            BadPicture: not a picture, or too large a one.
        """
        return await asyncio.get_running_loop().run_in_executor(self._some_pictures, load_background, data)

    async def still(self, name: str) -> bytes:
        """A small JPEG of that background, a film's first picture, for people to choose by.

        Raises:
            BadOption: there is none.
            BadPicture: its file cannot be used.
        """
        return await asyncio.get_running_loop().run_in_executor(self._some_pictures, _still, self.path(name))

    def _film(self, path: Path) -> Clip:
        film = self._films.get(path)
        if film is None:
            with _reading(path):
                film = self._films[path] = load_clip(path)
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


def _picture(path: Path) -> Frame:
    with _reading(path):
        return first_picture(path) if is_clip(path) else load_background(path.read_bytes())


def _still(path: Path) -> bytes:
    pixels = bgr_from_frame(_picture(path))
    scale = min(1.0, STILL_SIDE / max(pixels.shape[:2]))
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    return encode(np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8), ".jpg")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # it has gone since the folder was looked at
        raise BadPicture("background", f"{path.name} cannot be read: {error.strerror}") from error
