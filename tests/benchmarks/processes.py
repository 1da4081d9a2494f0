"""What the kernel says of a process and of all it has started, and the allocator that some are started with."""

import os
from collections.abc import Iterable
from pathlib import Path

from portrait.workers.environment import find_jemalloc

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def family(pid: int) -> list[int]:
    """A process and all that came of it."""
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and all that came of it."""
    ticks = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def resident(pids: Iterable[int]) -> int:
    """Bytes that processes have in memory; what they share counts for each."""
    return PAGE * sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in pids)


def jemalloc() -> Path | None:
    """The library: what `make .venv/jemalloc` brings, or the machine's own."""
    return find_jemalloc(Path(__file__).parents[2] / ".venv" / "jemalloc") or find_jemalloc()
