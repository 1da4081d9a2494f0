"""The pictures and clips that sessions can show behind the person."""

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
"""Suffixes, in lower or upper case, of the files that are listed. Their format is known by their bytes."""

MAX_PIXELS = 25_000_000
"""Of a background's file. It is kept with no more than KEPT_SIDE pixels on its longer side."""

KEPT_SIDE = 1920

STILL_SIDE = 480
"""Pixels on the longer side of a gallery picture."""

PICTURE_THREADS = 4
"""Pictures of clients that are decoded at once."""


class Backgrounds:
    """The embedded pictures, and the pictures and clips of one more folder, by their files' names.

    One of these is decoded when the first session asks for it, shared with later sessions, and freed with the last; one
    picture and one clip at a time, so that no number of requests takes more memory. Decoding takes up to seconds and
    runs in this object's own threads, so that nothing else waits for it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        folders = [EMBEDDED] if folder is None else [EMBEDDED, folder]
        files = (path for place in folders for path in sorted(place.iterdir()))
        self._paths = {path.stem: path for path in files if path.suffix.lower() in PICTURES or is_clip(path)}
        self._clips: WeakValueDictionary[Path, Clip] = WeakValueDictionary()
        self._pictures: WeakValueDictionary[tuple[Path, int], Frame] = WeakValueDictionary()
        """By path and by when the file was changed, in ns."""
        self._stills: dict[Path, tuple[int, bytes]] = {}
        """For each path asked for: when the file was changed, in ns, and the JPEG made of it then, some 20 KB."""
        self._clip_thread = ThreadPoolExecutor(1, thread_name_prefix="clip")
        self._folder_thread = ThreadPoolExecutor(1, thread_name_prefix="background")
        self._picture_threads = ThreadPoolExecutor(PICTURE_THREADS, thread_name_prefix="picture")

    def take_over(self, other: "Backgrounds") -> None:
        """Use the pictures of `other` from now on."""
        self._paths, self._clips, self._stills = other._paths, other._clips, other._stills
        self._pictures = other._pictures

    @property
    def names(self) -> list[str]:
        """All names."""
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
        """The picture or clip of that name, decoded.

        Raises:
            BadOption: there is none.
            BadPicture: its file cannot be used.
        """
        path, loop = self.path(name), asyncio.get_running_loop()
        if is_clip(path):
            return await loop.run_in_executor(self._clip_thread, self._clip, path)
        return await loop.run_in_executor(self._folder_thread, self._picture, path)

    async def decode(self, data: bytes) -> Frame:
        """Decode a background that a client sends: a JPEG, PNG or WebP file.

        Raises:
            BadPicture: not a picture, or too large.
        """
        return await asyncio.get_running_loop().run_in_executor(self._picture_threads, load_background, data)

    async def still(self, name: str) -> bytes:
        """A small JPEG of that background, of a clip's first picture, for a gallery.

        Raises:
            BadOption: there is none.
            BadPicture: its file cannot be used.
        """
        return await asyncio.get_running_loop().run_in_executor(self._folder_thread, self._still, self.path(name))

    def _still(self, path: Path) -> bytes:
        with _reading(path):
            status = path.stat()
        changed, still = self._stills.get(path, (0, b""))
        if changed != status.st_mtime_ns:
            still = encode(_scaled(_picture(path), STILL_SIDE), ".jpg")
            self._stills[path] = status.st_mtime_ns, still
        return still

    def _picture(self, path: Path) -> Frame:
        with _reading(path):
            key = path, path.stat().st_mtime_ns
        picture = self._pictures.get(key)
        if picture is None:
            picture = self._pictures[key] = _picture(path)
        return picture

    def _clip(self, path: Path) -> Clip:
        clip = self._clips.get(path)
        if clip is None:
            with _reading(path):
                clip = self._clips[path] = load_clip(path)
        return clip


def load_background(data: bytes) -> Frame:
    """Decode a background from a JPEG, PNG or WebP file's bytes. What is transparent becomes grey.

    Raises:
        BadPicture: not a picture, or too large.
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
    except OSError as error:  # for example, it was deleted after the folder was read
        raise BadPicture("background", f"{path.name} cannot be read: {error.strerror}") from error
