"""What must be set before Python starts."""

import os
import sys
from collections.abc import Mapping

MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(64 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
    "MALLOC_TOP_PAD_": str(16 * 2**20),
}
"""glibc maps and unmaps every buffer over 128 KB, that is every frame, and pays a page fault for each 4 KB of it. With
these it keeps them; docs/tuning.md says what that is worth."""


def missing_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The allocator's variables that are not set; none where another allocator is preloaded."""
    if "jemalloc" in environ.get("LD_PRELOAD", "") or "tcmalloc" in environ.get("LD_PRELOAD", ""):
        return {}
    return {name: value for name, value in MALLOC.items() if name not in environ}


def relaunch_tuned() -> None:
    """Start this command again with the allocator's variables set, in the same process; a no-op when they are."""
    if missing := missing_variables(os.environ):
        os.execve(sys.executable, [sys.executable, "-m", "portrait", *sys.argv[1:]], {**os.environ, **missing})
