"""`python -m tests.benchmarks.counted`: a service that counts what it holds, once for every line it is sent."""

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

from portrait.server.app import CODEC_THREADS, RunningService, run_service
from portrait.settings import Settings


def udp_ports() -> int:
    """UDP sockets of this process."""
    held = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own
            held.add(str(descriptor.readlink()))
    tables = [Path(f"/proc/self/net/{name}").read_text() for name in ("udp", "udp6")]
    return sum(f"socket:[{line.split()[9]}]" in held for table in tables for line in table.splitlines()[1:])


POOLS = ("codec_", "viewer-encoder_", "picture_", "picture-header_", "background_", "clip_")
"""How the names of pools' threads begin. A pool starts them one by one as they are needed and has a bound of its own:
in a short run the last of them come after the first count."""

ALL_ARENAS = 4096
"""What jemalloc calls all of them (MALLCTL_ARENAS_ALL)."""

LIBRARY = ctypes.CDLL(None)


def read_jemalloc(name: str) -> int:
    """One of jemalloc's numbers, as it is now."""
    value, size, epoch = ctypes.c_size_t(), ctypes.c_size_t(8), ctypes.c_uint64(1)
    assert LIBRARY.mallctl(b"epoch", None, None, ctypes.byref(epoch), ctypes.c_size_t(8)) == 0
    assert LIBRARY.mallctl(name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)) == 0
    return value.value


class MallInfo(ctypes.Structure):
    """What glibc's mallinfo2() gives."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


def allocated() -> int:
    """Bytes that are allocated and not freed. With glibc Python's own small objects are left out."""
    if hasattr(LIBRARY, "mallctl"):
        return read_jemalloc("stats.allocated")
    LIBRARY.mallinfo2.restype = MallInfo
    info = LIBRARY.mallinfo2()
    return int(info.uordblks + info.hblkhd)


def resident() -> int:
    """Bytes; what the allocator only keeps is given back first."""
    gc.collect()
    if hasattr(LIBRARY, "mallctl"):
        assert LIBRARY.mallctl(b"arena.%d.purge" % ALL_ARENAS, None, None, None, ctypes.c_size_t(0)) == 0
    else:
        LIBRARY.malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def count(running: RunningService) -> dict[str, int]:
    return {
        "sessions": len(running.sessions),
        "tasks": len(asyncio.all_tasks()),
        "threads": sum(not thread.name.startswith(POOLS) for thread in threading.enumerate()),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "udp_ports": udp_ports(),
        "rss": resident(),
        "allocated": allocated(),
    }


async def serve(settings: Settings) -> None:
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with run_service(settings) as running:
        # The pool that encodes has started all its threads before anything is counted.
        await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.2) for _ in range(CODEC_THREADS)))
        print(json.dumps({"http": running.http_port, "grpc": running.grpc_port}), flush=True)
        while await reader.readline():
            print(json.dumps(count(running)), flush=True)
    transport.close()


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    # Nobody is refused: whoever is has nothing to leave behind.
    limits = {"max_sessions": 1000, "max_viewers": 1000, "cpu_share": 0, "quality_steps": 0}
    ends = {"idle_seconds": 3.0, "drain_seconds": 0.0}
    asyncio.run(serve(Settings.model_validate({"http_port": 0, "grpc_port": 0, "media_port": 0, **limits, **ends})))
