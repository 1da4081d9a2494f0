"""Live streams beside large stills: `python -m tests.benchmarks.bombs [--json]`.

Four live streams of 640x360 run on a box of one worker while twelve clients at once send a kilobyte of WebP that holds
25 million pixels, over HTTP, then over gRPC. Told are the box's peak of memory, beside the limit of the shipped
Kubernetes manifest, and the age of the streams' frames when their results come back to the client. Nothing else may run
on the machine.
"""

import argparse
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np

from portrait.client import Client, Picture
from tests.benchmarks.stored import add_option, report
from tests.boxes import serving
from tests.people import clip
from tests.test_hostile_bombs import peak
from tests.test_pixel_budget import bomb, by_grpc, by_http, shipped_limit

BOMBS = 12
STREAMS = 4
RATE = 30.0
SIZE = (640, 360)
QUIET_SECONDS = 5.0
"""How long the streams run alone: first to settle, then to be measured."""

LIMIT = 0.1
"""Seconds: the age of a frame, of 99 of 100."""

WAYS: dict[str, Callable[[dict[str, Any], bytes], bool]] = {"http": by_http, "grpc": by_grpc}


class Cameras:
    """Live streams at a steady rate, whatever the box does; the ages of their frames."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._frames = [
            Picture.jpeg(bytes(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]))
            for frame in clip(*SIZE, 30).frames
        ]
        self.ages: list[float] = []

    async def run(self, phase: float) -> None:
        """One stream, until it is cancelled; `phase` is a part of a frame's time."""
        sent: dict[int, float] = {}

        async def source() -> AsyncIterator[Picture]:
            began, number = time.monotonic() + phase / RATE, 0
            while True:
                await asyncio.sleep(began + number / RATE - time.monotonic())
                sent[number] = time.monotonic()
                yield self._frames[number % len(self._frames)]
                number += 1

        async with Client(self._target) as client:
            async for reply in client.stream(source(), mode="mask"):
                self.ages.append(time.monotonic() - sent.pop(reply.id))

    def taken(self) -> dict[str, float]:
        """The ages since the last call: how many, and percentiles in milliseconds."""
        ages, self.ages = np.array(self.ages) * 1e3, []
        return {
            "frames": len(ages),
            **{f"p{part}_ms": round(float(np.percentile(ages, part)), 1) for part in (50, 99, 100)},
        }


async def measured() -> dict[str, Any]:
    """The figures of both ways in."""
    data, found = bomb(), {}
    # Without admission by cost, which would refuse most of the stills beside four streams: this is the worst case.
    box = serving("--workers", "1", "--media-ports", "0-0", "--cpu-share", "0")
    with box as (process, told), ThreadPoolExecutor(BOMBS) as pool:
        cameras, loop = Cameras(told["grpc"]), asyncio.get_running_loop()
        running = [asyncio.create_task(cameras.run(number / STREAMS)) for number in range(STREAMS)]
        await asyncio.sleep(QUIET_SECONDS)
        cameras.taken()
        await asyncio.sleep(QUIET_SECONDS)
        alone = cameras.taken()
        for name, way in WAYS.items():
            began = time.monotonic()
            answers = await asyncio.gather(*(loop.run_in_executor(pool, way, told, data) for _ in range(BOMBS)))
            seconds = round(time.monotonic() - began, 1)
            found[name] = {"answered": sum(answers), "of": BOMBS, "seconds": seconds, **cameras.taken()}
        for task in running:
            task.cancel()
        for task in running:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        peak_mb = round(peak(process.pid) / 2**20)
    return {
        "streams": STREAMS,
        "size": SIZE,
        "alone": alone,
        **found,
        "peak_mb": peak_mb,
        "memory_limit_mb": round(shipped_limit() / 2**20),
        "age_limit_ms": LIMIT * 1e3,
        "met": peak_mb * 2**20 < shipped_limit() and all(found[name]["p99_ms"] < LIMIT * 1e3 for name in WAYS),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_option(parser, "bombs")
    options = parser.parse_args()
    report(asyncio.run(measured()), options.json)


if __name__ == "__main__":
    main()
