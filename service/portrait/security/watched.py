"""Content of files that is read again when they change."""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from portrait.errors import BadSettings

logger = logging.getLogger(__name__)

T = TypeVar("T")
Stamp: TypeAlias = tuple[tuple[int, int, int], ...]


class Watched(Generic[T]):
    """The value that `load` makes of some files. Each `get` compares their time stamps, which costs microseconds.

    While new files are unusable, or half of a pair has been replaced, the old value stays in use: a mistake in a file
    must neither lock every client out nor let one in. It is logged once per change. Thread-safe.

    Raises:
        BadSettings: the files are unusable at the start.
    """

    def __init__(self, paths: Sequence[Path], load: Callable[[], T]) -> None:
        self._paths, self._load = paths, load
        self._lock = threading.Lock()
        self._stamp = self._look()
        self._value = load()

    def get(self) -> T:
        """Return the value of the files as they are now."""
        with self._lock:
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                self._reload()
            return self._value

    def _reload(self) -> None:
        names = ", ".join(str(path) for path in self._paths)
        try:
            self._value = self._load()
        except Exception as error:
            # The text of an unforeseen error may repeat the file's content, which is secret.
            reason = error if isinstance(error, BadSettings) else type(error).__name__
            logger.error("%s changed and cannot be used; the old content stays in use: %s", names, reason)
        else:
            logger.info("%s changed and is in use", names)

    def _look(self) -> Stamp:
        stamps = []
        for path in self._paths:
            try:
                found = path.stat()
                stamps.append((found.st_mtime_ns, found.st_size, found.st_ino))
            except OSError:
                stamps.append((0, 0, 0))
        return tuple(stamps)


def read(name: str, path: Path) -> bytes:
    """Read the file that the setting `name` names.

    Raises:
        BadSettings: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadSettings(f"{name}={str(path)!r}: {error.strerror}") from error
