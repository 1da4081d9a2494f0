"""What the workers of a box tell each other: a page of shared memory with one row for each.

A killed worker leaves its row, its socket and its stream names behind; the supervisor removes all three, so that the
other workers need not know that it ended.
"""

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

from portrait.workers.stream_names import StreamNames

_ROW = struct.Struct("dddqq???")
ROW_BYTES = 64
"""A cache line each, so that workers do not slow each other down by writing."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one worker tells the others; all zeros where there is no worker."""

    alive_at: float = 0.0
    """When it last wrote, in seconds of the monotonic clock, which all processes of a machine share."""
    used: float = 0.0
    """Cores it used in the last second."""
    committed: float = 0.0
    """Cores its sessions cost at the lowest quality level that may be used: what admission counts."""
    sessions: int = 0
    viewers: int = 0
    ready: bool = False
    draining: bool = False
    saturated: bool = False
    """Whether it is overloaded although quality is as low as it may go."""


class SharedState:
    """One worker's view of the box: it writes its own row and reads all of them.

    Without a folder it is the state of a box with a single worker, in private memory.
    """

    def __init__(self, folder: Path | None = None, index: int = 0, count: int = 1) -> None:
        self.folder, self.index, self.count = folder, index, count
        # One row more than there are workers: while one is replaced, its successor runs already.
        self.places = count if folder is None else count + 1
        self.stream_names = StreamNames(folder / "streams" if folder is not None else None, index)
        self._own = Row()
        self._size = (self.places + 1) * ROW_BYTES  # the last one is the box's own
        if folder is None:
            self._file: int | None = None
            self._memory = mmap.mmap(-1, self._size)
            self.mark_started()
            return
        self._file = os.open(folder / "state", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Allocated now, not at the first write: a full disk would kill the process then (SIGBUS).
        os.posix_fallocate(self._file, 0, self._size)
        self._memory = mmap.mmap(self._file, self._size)

    def close(self) -> None:
        """Release memory and file; the row keeps its content. Idempotent."""
        self._memory.close()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def tell(self, **changes: Any) -> None:
        """Change fields of the own row. Every call also renews `alive_at`."""
        self._own = replace(self._own, alive_at=time.monotonic(), **changes)
        self._write(self.index, self._own)

    @property
    def rows(self) -> list[Row]:
        """Every worker's row, by index."""
        starts = range(0, self.places * ROW_BYTES, ROW_BYTES)
        return [Row(*_ROW.unpack(self._memory[start : start + _ROW.size])) for start in starts]

    @property
    def others_serve(self) -> bool:
        """Whether another worker accepts new work."""
        return any(row.ready and not row.draining for i, row in enumerate(self.rows) if i != self.index)

    @property
    def started(self) -> bool:
        """Whether every worker of the box has come up once: before that the box cannot take what it promises."""
        return bool(self._memory[self.places * ROW_BYTES])

    def mark_started(self) -> None:
        """Note that every worker has come up."""
        self._memory[self.places * ROW_BYTES] = 1

    def forget(self, index: int) -> None:
        """Clear the row of a worker that has ended, and free its socket and its stream names."""
        self._write(index, Row())
        if self.folder is not None:
            self.socket(index).unlink(missing_ok=True)
            self.grpc_socket(index).unlink(missing_ok=True)
        self.stream_names.forget(index)

    def _write(self, index: int, row: Row) -> None:
        # Packed first and copied whole: `pack_into` zeroes the place before it fills it, and a reader would find an
        # empty row meanwhile. Each field is aligned, so a reader sees its old or its new value.
        start = index * ROW_BYTES
        self._memory[start : start + _ROW.size] = _ROW.pack(*astuple(row))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the other workers out of such blocks, so that two never take the last slot. For microseconds only.

        Everything that may wait, a log line too, belongs outside: all workers' event loops wait for the lock.
        """
        if self._file is None:
            yield
            return
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def grpc_socket(self, index: int) -> Path:
        """Return the Unix socket on which a worker answers the others' gRPC calls. Needs a folder."""
        assert self.folder is not None
        return self.folder / f"grpc-{index}.sock"

    def socket(self, index: int) -> Path:
        """Return the Unix socket on which a worker answers the others. Needs a folder."""
        assert self.folder is not None
        return self.folder / f"worker-{index}.sock"
