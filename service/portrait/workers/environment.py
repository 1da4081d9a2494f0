"""What must be set before Python starts or its libraries are loaded: allocator, threads, cores.

docs/operate/tuning.md has the measurements.
"""

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(64 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
    "MALLOC_TOP_PAD_": str(16 * 2**20),
}
"""Bytes. By default glibc maps and unmaps each buffer over 128 KB, so each frame, and pays a page fault per 4 KB of it.
With these it keeps them."""

THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""A stream uses one thread; NumPy's OpenBLAS would start one per core when it is loaded."""

CAMERA_FLAG = "--camera"

SWITCH_INTERVAL = 2e-4
"""Seconds. Each inference waits this long for the GIL while another Python thread is busy; Python's default is 5 ms."""

SMALL_OBJECTS = {"PYTHONMALLOC": "malloc"}
"""With jemalloc, which gives pages back. Python's allocator of small objects keeps a megabyte for each that stays."""

JEMALLOC = "libjemalloc.so.2"
LIBRARIES = ("/usr/lib/*-linux-gnu*", "/usr/lib64", "/usr/lib", "/usr/local/lib")
"""Where libraries are: Debian's multiarch folders, Red Hat's, Alpine's and Arch's, and those built by hand."""


def find_jemalloc(root: Path = Path("/")) -> Path | None:
    """Find the jemalloc library; None where it is not installed."""
    found = (path for pattern in LIBRARIES for path in root.glob(f"{pattern[1:]}/{JEMALLOC}"))
    return next(found, None)


def missing_variables(environ: Mapping[str, str], jemalloc: Path | None = None) -> dict[str, str]:
    """Return the variables that the environment lacks. An allocator that was chosen already stays."""
    missing = {name: value for name, value in THREADS.items() if name not in environ}
    preloaded = environ.get("LD_PRELOAD", "")
    if "jemalloc" in preloaded or "tcmalloc" in preloaded or any(name in environ for name in MALLOC):
        return missing
    if jemalloc is not None:
        small = {} if "PYTHONMALLOC" in environ else SMALL_OBJECTS
        return missing | small | {"LD_PRELOAD": f"{jemalloc}:{preloaded}" if preloaded else str(jemalloc)}
    return missing | MALLOC


def without_cameras(words: Sequence[str]) -> tuple[list[str], str]:
    """Split a command line into its words without `--camera NAME=URL`, and those cameras with spaces between them.

    Every user of the machine can read a command line, and an address may hold a password.
    """
    kept: list[str] = []
    cameras: list[str] = []
    rest = iter(words)
    for word in rest:
        if word.startswith(f"{CAMERA_FLAG}="):
            cameras.append(word.partition("=")[2])
        elif word == CAMERA_FLAG and (value := next(rest, None)) is not None:
            cameras.append(value)
        else:
            kept.append(word)
    return kept, " ".join(cameras)


def relaunch_tuned() -> None:
    """Start this command again, in this process, with the variables it lacks and without the addresses of cameras.

    Does nothing when it lacks none and names none.
    """
    words, cameras = without_cameras(sys.argv[1:])
    missing = missing_variables(os.environ, find_jemalloc())
    if cameras:
        missing["PORTRAIT_CAMERA"] = cameras  # in place of the environment's own, over which flags win
    if missing:
        os.execve(sys.executable, [sys.executable, "-m", "portrait", *words], {**os.environ, **missing})


def tune_interpreter() -> None:
    """Make Python threads hand the GIL over sooner."""
    sys.setswitchinterval(SWITCH_INTERVAL)


def exempt_from_collection() -> None:
    """Exempt all objects that there are now from garbage collection. A service calls this once it has started.

    It has 100,000 by then, which stay. A full collection looks at all of them, and no thread runs meanwhile.
    """
    gc.collect()
    gc.freeze()


def default_workers(budget: float) -> int:
    """Return one worker per core less one, at least one: a core stays free for network and system."""
    return max(1, int(budget) - 1)


def pin(index: int, count: int) -> None:
    """Restrict a worker to its share of the cores this process may use; to one of them when there are fewer."""
    cores = sorted(os.sched_getaffinity(0))
    first, last = len(cores) * index // count, len(cores) * (index + 1) // count
    os.sched_setaffinity(0, cores[first:last] or [cores[index % len(cores)]])
