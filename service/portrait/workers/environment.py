"""What must be set before Python starts, or before its libraries are loaded.

What each is worth: docs/operate/tuning.md.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(64 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
    "MALLOC_TOP_PAD_": str(16 * 2**20),
}
"""glibc maps and unmaps every buffer over 128 KB, that is every frame, and pays a page fault for each 4 KB of it. With
these it keeps them."""

THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""One thread per stream is the promise; NumPy's OpenBLAS would start one per core when it is loaded."""

SWITCH_INTERVAL = 2e-4
"""Seconds. A busy Python thread makes every inference wait this long for the GIL; the standard is 5 ms."""

JEMALLOC = "libjemalloc.so.2"
LIBRARIES = ("/usr/lib/*-linux-gnu*", "/usr/lib64", "/usr/lib", "/usr/local/lib")
"""Where distributions put it: Debian's multiarch folders, Red Hat's, Alpine's and Arch's, one's own."""


def find_jemalloc(root: Path = Path("/")) -> Path | None:
    """The library, where this machine has it."""
    found = (path for place in LIBRARIES for path in root.glob(f"{place[1:]}/{JEMALLOC}"))
    return next(found, None)


def missing_variables(environ: Mapping[str, str], jemalloc: Path | None = None) -> dict[str, str]:
    """What the environment lacks. An allocator that somebody has chosen stays."""
    missing = {name: value for name, value in THREADS.items() if name not in environ}
    preloaded = environ.get("LD_PRELOAD", "")
    if "jemalloc" in preloaded or "tcmalloc" in preloaded or any(name in environ for name in MALLOC):
        return missing
    if jemalloc is not None:
        return missing | {"LD_PRELOAD": f"{jemalloc}:{preloaded}" if preloaded else str(jemalloc)}
    return missing | MALLOC


def relaunch_tuned() -> None:
    """Start this command again with what the environment lacks, in the same process; a no-op when it lacks nothing."""
    if missing := missing_variables(os.environ, find_jemalloc()):
        os.execve(sys.executable, [sys.executable, "-m", "portrait", *sys.argv[1:]], {**os.environ, **missing})


def tune_interpreter() -> None:
    """Hand the GIL over sooner."""
    sys.setswitchinterval(SWITCH_INTERVAL)


def default_workers(budget: float) -> int:
    """One per core less one, which is left to the packets' and the machine's own work; at least one."""
    return max(1, int(budget) - 1)


def pin(index: int, count: int) -> None:
    """Keep a worker to its share of the cores this process may use; with fewer cores than workers, to one of them."""
    cores = sorted(os.sched_getaffinity(0))
    first, last = len(cores) * index // count, len(cores) * (index + 1) // count
    os.sched_setaffinity(0, cores[first:last] or [cores[index % len(cores)]])
