"""A thread of another process that stands still for the length of a block: what a hung interpreter looks like."""

import asyncio
import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# ptrace(2): attach without stopping, then stop; the kernel lets go when the tracing thread says so, or ends.
SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
ALL_THREADS = 0x40000000
"""`__WALL` of waitpid(2)."""

_libc = ctypes.CDLL(None, use_errno=True)


def threads(process: int) -> dict[int, int]:
    """The threads of a process by the kernel's numbers, with the clock ticks of CPU that each has used."""
    used = {}
    for path in Path(f"/proc/{process}/task").iterdir():
        fields = (path / "stat").read_text().rpartition(")")[2].split()
        used[int(path.name)] = int(fields[11]) + int(fields[12])
    return used


async def wait_idle(process: int, thread: int) -> None:
    """Wait until a thread waits for work: it sleeps, and has not been woken for long.

    One that waits for the GIL is woken every 5 ms. Stopped then, it would block the thread that hands the GIL over.
    """
    path, before = Path(f"/proc/{process}/task/{thread}/status"), None
    while True:
        status = dict(line.split(":\t", 1) for line in path.read_text().splitlines())
        switches = status["voluntary_ctxt_switches"], status["nonvoluntary_ctxt_switches"]
        if switches == before and status["State"].startswith("S"):
            return
        before = switches
        await asyncio.sleep(0.2)


def _ptrace(request: int, thread: int) -> None:
    if _libc.ptrace(ctypes.c_long(request), ctypes.c_long(thread), None, None) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def stopped(thread: int) -> Iterator[Callable[[], bool]]:
    """One thread stands still, the others of its process go on. Yields a function: whether the thread has ended.

    Stopped while it waits for work (`wait_idle`), it holds no lock. Everything here is to be called on one thread,
    which is also to ask for the end: before that the process cannot end.

    Raises:
        PermissionError: the kernel does not allow tracing here.
    """
    _ptrace(SEIZE, thread)
    _ptrace(INTERRUPT, thread)
    os.waitpid(thread, ALL_THREADS)
    over = False

    def has_ended() -> bool:
        nonlocal over
        over = over or os.waitpid(thread, ALL_THREADS | os.WNOHANG)[0] == thread
        return over

    try:
        yield has_ended
    finally:
        if not over:
            _ptrace(DETACH, thread)
