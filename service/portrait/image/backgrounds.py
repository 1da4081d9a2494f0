"""The pictures and films people may put behind themselves."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from weakref import WeakValueDictionary

from portrait.errors import BadOption, BadPicture
from portrait.image.clip import Clip, first_picture, is_clip, load_clip
from portrait.image.compressed import decode_frame, encode
from portrait.image.convert import fit_cover, flattened
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
        self._stills: dict[Path, tuple[int, bytes]] = {}
        """For each path asked for: when the file was changed, in ns, and the JPEG made of it then, some 20 KB."""
        self._one_film = ThreadPoolExecutor(1, thread_name_prefix="film")
        self._some_pictures = ThreadPoolExecutor(PICTURE_THREADS, thread_name_prefix="background")

    def take_over(self, other: "Backgrounds") -> None:
        """Have the pictures of `other` from now on."""
        self._paths, self._films, self._stills = other._paths, other._films, other._stills

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
        return await asyncio.get_running_loop().run_in_executor(self._some_pictures, self._still, self.path(name))

    def _still(self, path: Path) -> bytes:
        with _reading(path):
            status = path.stat()
        changed, still = self._stills.get(path, (0, b""))
        if changed != status.st_mtime_ns:
            still = encode(_scaled(_picture(path), STILL_SIDE), ".jpg")
            self._stills[path] = status.st_mtime_ns, still
        return still

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
    frame = flattened(decode_frame(data, MAX_PIXELS, "background", Timestamp(0, Fraction(1)), 0.0))
    return _scaled(frame, KEPT_SIDE)


def _picture(path: Path) -> Frame:
    with _reading(path):
        return first_picture(path) if is_clip(path) else load_background(path.read_bytes())


def _scaled(frame: Frame, side: int) -> Frame:
    """The frame with `side` on its longer side, or as it is where it is smaller."""
    scale = side / max(frame.width, frame.height)
    if scale >= 1:
        return frame
    return fit_cover(frame, max(1, round(frame.width * scale)), max(1, round(frame.height * scale)))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # it has gone since the folder was looked at
        raise BadPicture("background", f"{path.name} cannot be read: {error.strerror}") from error
