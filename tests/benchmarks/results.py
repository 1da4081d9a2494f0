"""What the three ways of a result cost the server, beside aiortc's own echo: `python -m tests.benchmarks.results`.

A client in this process sends a camera of 640x360 at 30 frames per second, one way after the other, in rounds. Each
server is a process of its own, and what counts is all of its CPU time (packets, codecs, network) per frame that came
back. Echo is aiortc as it ships, without any network; `receive` is it again, only receiving and decoding, per frame
sent: most of a floor for ours. `--same-allocator` gives both the allocator settings the service starts with.
`of_echo` is the median of the ratios to the echo of the same round.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import numpy as np

from portrait.workers.environment import MALLOC
from tests import people
from tests.benchmarks.processes import cpu_seconds
from tests.benchmarks.stored import add_option, report
from tests.rtc import Camera, Viewer

WAYS = {
    "echo": {},
    "receive": {"result": "receive"},
    "composite": {"result": "composite", "mode": "blur"},
    "mask": {"result": "mask"},
    "data": {"result": "data"},
}

STOCK, ONE_WAY = ("echo", "receive"), ("receive", "data")


@asynccontextmanager
async def server(
    way: str, same_allocator: bool, settings: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[str, int]]:
    """(address, process) of the server of a way, with these variables in its environment."""
    environment = {**os.environ, **(MALLOC if same_allocator else {}), **(settings or {})}
    command = ["tests.benchmarks.echo"] if way in STOCK else ["portrait", "serve", "--json"]
    ports = [] if way in STOCK else ["--http-port", "0", "--grpc-port", "0", "--media-ports", "0-0"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *command, *ports, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said = json.loads(await process.stdout.readline())
        yield (f"http://127.0.0.1:{said}" if way in STOCK else said["page"].rstrip("/")), process.pid
    finally:
        process.terminate()
        await process.wait()


async def measure(way: str, url: str, process: int, shown: people.Clip, seconds: float) -> tuple[float, float]:
    """(CPU milliseconds per frame that came back, frames per second)."""
    async with aiohttp.ClientSession() as http:
        one, camera = Viewer(url, http), Camera(shown)
        came = 0

        def count(_: object = None) -> None:
            nonlocal came
            came += 1

        def done() -> int:
            return camera.sent if way == "receive" else came

        one.pc.addTransceiver(camera, direction="sendonly" if way in ONE_WAY else "sendrecv")
        if way == "data":
            one.pc.createDataChannel("masks", ordered=False, maxRetransmits=0).on("message", count)
        await one.connect(**WAYS[way])
        taking = None if way in ONE_WAY else asyncio.create_task(take(one, count))
        try:
            while done() < 30:
                await asyncio.sleep(0.1)
            began, before, frames = time.monotonic(), cpu_seconds(process), done()
            await asyncio.sleep(seconds)
            spent, frames, took = cpu_seconds(process) - before, done() - frames, time.monotonic() - began
        finally:
            if taking is not None:
                taking.cancel()
            if way not in STOCK:
                await (await http.delete(one.location)).release()
            await one.pc.close()
        return 1000 * spent / frames, frames / took


async def take(one: Viewer, count: object) -> None:
    """Count the pictures that come back."""
    while True:
        await one.frame()
        count()  # type: ignore[operator]


async def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Round by round, all ways; print each round and the medians."""
    width, height = map(int, arguments.size.split("x"))
    shown = people.clip(width, height, 60)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    async with AsyncExitStack() as stack:
        servers = {way: await stack.enter_async_context(server(way, arguments.same_allocator)) for way in WAYS}
        for number in range(arguments.rounds):
            for way, (url, process) in servers.items():
                milliseconds, rate = await measure(way, url, process, shown, arguments.seconds)
                found[way].append(milliseconds)
                print(
                    f"round {number + 1} {way:<10}{milliseconds:6.2f} ms a frame at {rate:4.1f} frames per second",
                    flush=True,
                )
    return {
        "size": arguments.size,
        "cpu_ms": {way: round(statistics.median(values), 2) for way, values in found.items()},
        "of_echo": {way: round(float(np.median(np.divide(values, found["echo"]))), 3) for way, values in found.items()},
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--same-allocator", action="store_true")
    add_option(parser, "results")
    parsed = parser.parse_args()
    report(asyncio.run(run(parsed)), parsed.json)


if __name__ == "__main__":
    main()
