"""Which worker of a box publishes which stream.

Each name is a symbolic link whose target is the worker's index. Making a link is atomic, so two workers never publish
one name, and the link outlives a killed worker until the supervisor removes it.
"""

from contextlib import suppress
from hashlib import sha256
from pathlib import Path


class StreamNames:
    """The published names as one worker sees them. Without a folder every name is free: there is one worker only."""

    def __init__(self, folder: Path | None, index: int) -> None:
        self._folder, self._index = folder, index
        if folder is not None:
            folder.mkdir(exist_ok=True)

    def claim(self, stream: str) -> bool:
        """Take the name for this worker; False when another worker has it."""
        if self._folder is None:
            return True
        try:
            self._link(self._folder, stream).symlink_to(str(self._index))
        except FileExistsError:
            return self.owner(stream) == self._index
        return True

    def release(self, stream: str) -> None:
        """Give a claimed name back. Idempotent."""
        if self._folder is not None:
            self._link(self._folder, stream).unlink(missing_ok=True)

    def owner(self, stream: str) -> int | None:
        """Return the index of the worker that publishes the stream, None when there is none."""
        if self._folder is None:
            return None
        try:
            return int(str(self._link(self._folder, stream).readlink()))
        except FileNotFoundError:
            return None

    def forget(self, index: int) -> None:
        """Free every name of a worker that has ended."""
        for link in self._folder.iterdir() if self._folder is not None else ():
            with suppress(FileNotFoundError):  # a living worker has released it since it was listed
                if str(link.readlink()) == str(index):
                    link.unlink()

    @staticmethod
    def _link(folder: Path, stream: str) -> Path:
        # Hashed: a name may be longer than a file's may be, and may hold any character.
        return folder / sha256(stream.encode("utf-8", "surrogateescape")).hexdigest()
