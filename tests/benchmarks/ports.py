"""What a shared port costs beside a range of ports, and TCP beside UDP: `python -m tests.benchmarks.ports`.

A service of each kind runs at the same time, each with one WebRTC loopback of 320x240, so that whatever else the
machine does slows all of them. What counts is the CPU time of a service's processes for each result, and the time from
a frame's being handed to the client's encoder until its result is decoded. The small picture leaves the network its
share.
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

import av

from portrait.transports.webrtc import aiortc_patches
from portrait.workers.environment import MALLOC
from tests import people
from tests.benchmarks.processes import cpu_seconds
from tests.benchmarks.stored import add_option, report
from tests.rtc import Camera, Viewer, viewer
from tests.tcp_ice import over_tcp

SERVE = (
    "portrait", "serve", "--json", "--http-port", "0", "--grpc-port", "0", "--workers", "1", "--cpu-share", "0",
    "--quality-steps", "0", "--segment", "always",
)  # fmt: skip
KINDS = {
    "range": ("--media-ports", "0-0"),
    "shared": ("--media-ports", "", "--media-port", "0"),
    "tcp": ("--media-ports", "", "--media-port", "0"),
}


@asynccontextmanager
async def server(*options: str) -> AsyncIterator[tuple[str, int]]:
    """(address, process) of a service."""
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    command = (sys.executable, "-m", *SERVE, *options)
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **MALLOC}, stdout=pipe, stderr=null)
    assert process.stdout is not None
    try:
        yield json.loads(await process.stdout.readline())["page"].rstrip("/"), process.pid
    finally:
        process.terminate()
        await process.wait()


class Timed(Camera):
    """A camera that knows when it gave each frame away."""

    def __init__(self, shown: people.Clip, rate: float) -> None:
        super().__init__(shown)
        self._pause, self.given = 1 / rate - 1 / 30, dict[int, float]()

    async def recv(self) -> av.VideoFrame:
        await asyncio.sleep(self._pause)
        frame = await super().recv()
        assert frame.pts is not None
        self.given[frame.pts] = time.perf_counter()
        return frame


class Loopback:
    """An open session, and how long its results took."""

    def __init__(self, one: Viewer, camera: Timed, answer: str) -> None:
        self._one, self._camera, self.answer, self.milliseconds = one, camera, answer, list[float]()

    async def run(self) -> None:
        """Take results until it is cancelled."""
        while True:
            frame = await self._one.frame()
            given = self._camera.given.pop(frame.pts or 0, None)
            if given is not None:
                self.milliseconds.append(1000 * (time.perf_counter() - given))


@asynccontextmanager
async def loopback(url: str, camera: Timed, tcp: bool = False) -> AsyncIterator[Loopback]:
    """A session that blurs, for the length of the block."""
    async with viewer(url, camera) as one:
        response = await one.post(await one.offer())
        assert response.status == 201, await response.text()
        answer = await response.text()
        await one.take(await over_tcp(one.pc, answer) if tcp else answer)
        await one.frame()
        opened = Loopback(one, camera, answer)
        task = asyncio.create_task(opened.run())
        try:
            yield opened
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def turn(names: list[str], shown: people.Clip, rate: float, seconds: float) -> dict[str, dict[str, float]]:
    """All kinds at once: what each result cost, and how long it took."""
    async with AsyncExitStack() as stack:
        opened = {}
        for name in names:
            url, process = await stack.enter_async_context(server(*KINDS[name]))
            session = await stack.enter_async_context(loopback(url, Timed(shown, rate), name == "tcp"))
            opened[name] = process, session
        await asyncio.sleep(5)
        spent = {name: cpu_seconds(process) for name, (process, _) in opened.items()}
        for _, session in opened.values():
            session.milliseconds.clear()
        await asyncio.sleep(seconds)
        return {
            name: {
                "cpu_ms_per_result": 1000 * (cpu_seconds(process) - spent[name]) / len(session.milliseconds),
                "median_ms": statistics.median(session.milliseconds),
                "results_per_second": len(session.milliseconds) / seconds,
            }
            for name, (process, session) in opened.items()
        }


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All turns, each beginning with another kind, and the ratios to the range."""
    aiortc_patches.install()  # so that results have the times of their frames
    shown, names = people.clip(320, 240, 60), list(KINDS)
    turns = []
    for number in range(arguments.turns):
        order = names[number % len(names) :] + names[: number % len(names)]
        turns.append(await turn(order, shown, arguments.rate, arguments.seconds))
        print(json.dumps(turns[-1]), flush=True)
    ratios = {
        f"{name}_of_range": {
            figure: round(statistics.median(each[name][figure] / each["range"][figure] for each in turns), 3)
            for figure in ("cpu_ms_per_result", "median_ms")
        }
        for name in names
        if name != "range"
    }
    return {"turns": turns, **ratios}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=30.0, help="of one turn")
    parser.add_argument("--rate", type=float, default=15.0, help="frames per second of each session")
    add_option(parser, "ports")
    parsed = parser.parse_args()
    report(asyncio.run(run(parsed)), parsed.json)


if __name__ == "__main__":
    main()
