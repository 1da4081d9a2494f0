"""Stills over HTTP, what each costs the server and how many a core answers: `python -m tests.benchmarks.stills`.

JPEG of 640x480 in, composed (blur) and sent back as JPEG. `pooled` is the service as it is, `unpooled` the same service
that opens a segmenter for every still; `fine` are stills that name no model, which `portrait-fine` looks at several
times, and `portrait` those that name it.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import cv2

from portrait.core.segmenters.pool import IDLE
from portrait.workers.environment import MALLOC
from tests import people
from tests.benchmarks.processes import cpu_seconds
from tests.benchmarks.stored import add_option, report

OPTIONS = (
    "serve", "--json", "--http-port", "0", "--grpc-port", "0", "--media-ports", "0-0", "--workers", "1",
    "--cpu-share", "0", "--quality-steps", "0",
)  # fmt: skip
SERVERS = {"pooled": IDLE, "unpooled": 0}
QUERIES = {"fine": {}, "portrait": {"model": "portrait"}}


@asynccontextmanager
async def server(idle: int) -> AsyncIterator[tuple[str, int]]:
    """(address, process) of a server that keeps so many idle segmenters."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.pooled", str(idle), *OPTIONS, env={**os.environ, **MALLOC},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield json.loads(await process.stdout.readline())["page"].rstrip("/"), process.pid
    finally:
        process.terminate()
        await process.wait()


async def measure(
    url: str, process: int, http: aiohttp.ClientSession, jpeg: bytes, query: dict[str, str], count: int
) -> float:
    """CPU milliseconds of the server for a still, over `count` of them, one after the other."""
    spent = 0.0
    for number in range(count + 3):
        if number == 3:
            spent = cpu_seconds(process)
        headers = {"Content-Type": "image/jpeg", "Accept": "image/jpeg"}
        params = {"mode": "blur", **query}
        async with http.post(f"{url}/v1/segment", data=jpeg, params=params, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()
    return 1000 * (cpu_seconds(process) - spent) / count


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Round by round, every server and query in turns."""
    picture = people.clip(640, 480, 1).frames[0]
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    found: dict[str, list[float]] = {}
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        servers = {name: await stack.enter_async_context(server(idle)) for name, idle in SERVERS.items()}
        for _ in range(arguments.rounds):
            for asked, query in QUERIES.items():
                for name, (url, process) in servers.items():
                    spent = await measure(url, process, http, jpeg, query, arguments.stills)
                    found.setdefault(f"{asked}, {name}", []).append(spent)
    rows = {name: round(statistics.median(values), 2) for name, values in found.items()}
    return {
        "seconds": round(time.monotonic() - began),
        "cpu_ms": rows,
        "per_core": {name: round(1000 / spent, 1) for name, spent in rows.items()},
        "times": {asked: round(rows[f"{asked}, unpooled"] / rows[f"{asked}, pooled"], 2) for asked in QUERIES},
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stills", type=int, default=60)
    add_option(parser, "stills")
    parsed = parser.parse_args()
    report(asyncio.run(run(parsed)), parsed.json)


if __name__ == "__main__":
    main()
