"""The board: what the workers of a box tell each other, and who of them publishes which stream.

Counters stand in a page of shared memory, a row for each worker; names of streams in a folder, as symbolic links that
hold the number of their worker. Both are there for whoever comes next when a worker is killed: its row is cleared and
its names are given up by the supervisor, and nobody else has to notice.
"""

import fcntl
import mmap
import os
import re
import secrets
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

_ROW = struct.Struct("dddqq???")
OWNER = re.compile(r"[0-9]{1,4}")
ROW_BYTES = 64
"""A cache line each, so that workers do not disturb each other by telling."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one worker tells; all zeros where none is."""

    alive_at: float = 0.0
    """Its last sign of life, in seconds of the monotonic clock, which all processes of a machine share."""
    used: float = 0.0
    """Cores it used in the last second."""
    committed: float = 0.0
    """Cores its sessions cost when quality is as low as it may go: what admission counts."""
    sessions: int = 0
    viewers: int = 0
    ready: bool = False
    draining: bool = False
    saturated: bool = False
    """Whether quality is as low as it may go and that is not enough."""


class SharedState:
    """A worker's place at the board: its own row to write, everybody's to read.

    Without a folder it is the board of the only worker, in memory of its own.
    """

    def __init__(self, folder: Path | None = None, index: int = 0, count: int = 1) -> None:
        self.folder, self.index, self.count = folder, index, count
        # One more than there are workers: while one is replaced, its successor is there already.
        self.places = count if folder is None else count + 1
        self._mine = Row()
        if folder is None:
            self._file: int | None = None
            self._memory = mmap.mmap(-1, self.places * ROW_BYTES)
            return
        self._streams = folder / "streams"
        self._streams.mkdir(exist_ok=True)
        self._file = os.open(folder / "board", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Taken now, not when it is first written to: a full disk would end the process then.
        os.posix_fallocate(self._file, 0, self.places * ROW_BYTES)
        self._memory = mmap.mmap(self._file, self.places * ROW_BYTES)

    def close(self) -> None:
        """Give memory and file back; the row stays as it is. Idempotent."""
        self._memory.close()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def tell(self, **changes: Any) -> None:
        """Change fields of the own row. Every telling is a sign of life."""
        self._mine = replace(self._mine, alive_at=time.monotonic(), **changes)
        self._write(self.index, self._mine)

    @property
    def rows(self) -> list[Row]:
        """Everybody's row, by number."""
        starts = range(0, self.places * ROW_BYTES, ROW_BYTES)
        return [Row(*_ROW.unpack(self._memory[start : start + _ROW.size])) for start in starts]

    @property
    def others_serve(self) -> bool:
        """Whether another worker takes new work."""
        return any(row.ready and not row.draining for i, row in enumerate(self.rows) if i != self.index)

    def forget(self, index: int) -> None:
        """Clear the row of a worker that is gone, and give its streams up."""
        self._write(index, Row())
        if self.folder is not None:
            self.socket(index).unlink(missing_ok=True)
            for link in self._streams.iterdir():
                with suppress(FileNotFoundError):  # its owner, who lives, has released it meanwhile
                    if str(link.readlink()) == str(index):
                        link.unlink()

    def _write(self, index: int, row: Row) -> None:
        # Packed elsewhere and copied: `pack_into` fills the place with zeros first, and whoever reads meanwhile would
        # find nobody there. Every field, which is aligned, is the old one or the new.
        start = index * ROW_BYTES
        self._memory[start : start + _ROW.size] = _ROW.pack(*astuple(row))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else is in such a block meanwhile: two workers never take the last place both. Microseconds only."""
        if self._file is None:
            yield
            return
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def socket(self, index: int) -> Path:
        """Where a worker is asked by the others. Only where the board has a folder."""
        assert self.folder is not None
        return self.folder / f"worker-{index}.sock"

    # Names.

    def new_id(self) -> str:
        """An unguessable id for a session or a viewer that says whose it is."""
        return f"{self.index}-{secrets.token_urlsafe(18)}"

    def owner_of_id(self, name: str) -> int | None:
        """The worker that gave the id; None for what is none."""
        number = name.partition("-")[0]
        return int(number) if OWNER.fullmatch(number) and int(number) < self.places else None

    def claim(self, stream: str) -> bool:
        """Publish the stream from here; False when another worker does."""
        if self.folder is None:
            return True
        try:
            self._link(stream).symlink_to(str(self.index))
        except FileExistsError:
            return self.owner_of_stream(stream) == self.index
        return True

    def release(self, stream: str) -> None:
        """Give a claimed name up."""
        if self.folder is not None:
            with suppress(FileNotFoundError):
                self._link(stream).unlink()

    def owner_of_stream(self, stream: str) -> int | None:
        """The worker that publishes the stream; None when nobody does."""
        if self.folder is None:
            return None
        try:
            return int(str(self._link(stream).readlink()))
        except FileNotFoundError:
            return None

    def _link(self, stream: str) -> Path:
        return self._streams / sha256(stream.encode("utf-8", "surrogateescape")).hexdigest()
