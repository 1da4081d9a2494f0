"""Searches what a service in trouble sends for what must be hidden: `python -m tests.faults.search --frames 10000`.

That is the room, and in the modes that hide the person the person.

First a service whose network fails in every way it can, then a box whose workers are killed.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeAlias, get_args

import aiohttp

from portrait.server.app import RunningService, run_service
from portrait.settings import Settings
from tests.boxes import serving, workers
from tests.faults.troubles import HANG_SECONDS, TroubledModel, instead_of_the_embedded
from tests.faults.ways import Found, over_grpc, over_journey, over_loopback, over_whip

Segment: TypeAlias = Literal["always", "on_change"]
"""Values of the setting `segment`."""


@contextmanager
def troubled(segment: str) -> Iterator[TroubledModel]:
    """Services started within the block, with this setting, have a network in trouble."""
    model = TroubledModel(segment)
    with instead_of_the_embedded(model):
        yield model


def settings(segment: Segment) -> Settings:
    return Settings(
        http_port=0, grpc_port=0, media_ports="0-0", max_sessions=8, drain_seconds=0.0, cpu_share=0.0, quality_steps=0,
        hang_seconds=HANG_SECONDS, segment=segment,
    )  # fmt: skip


WAYS: dict[str, Callable[[RunningService, Found], Any]] = {
    "webrtc": lambda running, found: over_loopback(f"http://127.0.0.1:{running.http_port}", found),
    "whip-whep": lambda running, found: over_whip(f"http://127.0.0.1:{running.http_port}", found),
    "grpc": lambda running, found: over_grpc(f"127.0.0.1:{running.grpc_port}", found),
}
HIDING = ", hiding the person"


async def search_all(frames: int, segment: Segment = "always") -> tuple[list[Found], dict[str, int]]:
    """So many frames in all, a third of them for the person, over each way; and which troubles were made."""
    each = -(-frames // (3 * len(WAYS)))
    searches = [Found(way + HIDING * hides, each * (2 - hides), hides) for hides in (False, True) for way in WAYS]
    with troubled(segment) as model:
        async with run_service(settings(segment)) as running:
            await asyncio.gather(*(WAYS[found.way.removesuffix(HIDING)](running, found) for found in searches))
    return searches, model.met


async def search_killed(frames: int) -> tuple[list[Found], int]:
    """So many frames in all of a box whose workers are killed, one after the other; and how often that was.

    They are counted from the first kill on, which waits until all are watched.
    """
    searches = [Found(way, sys.maxsize) for way in ("webrtc, killed", "whip-whep, killed", "grpc, killed")]
    box = ("--workers", "2", "--media-ports", "0-0", "--drain-seconds", "0", "--cpu-share", "0", "--quality-steps", "0")
    with serving(*box) as (process, told):
        url = told["page"].rstrip("/")
        ways = (over_loopback(url, searches[0]), over_whip(url, searches[1]), over_journey(told["grpc"], searches[2]))
        killing = asyncio.create_task(_kill(process.pid, url, searches, -(-frames // 3)))
        try:
            await asyncio.gather(*ways)
        finally:
            killing.cancel()
            (kills,) = await asyncio.gather(killing)
    return searches, kills


async def _kill(supervisor: int, url: str, searches: list[Found], wanted: int) -> int:
    """Kill a worker, one and the other by turns, whenever both work and all are watched; how many, once cancelled.

    At the first kill each search learns how many frames it still needs.
    """
    kills = 0
    with suppress(asyncio.CancelledError):
        async with aiohttp.ClientSession() as http:
            while True:
                before = [found.frames for found in searches]
                await asyncio.sleep(2.0)
                async with http.get(f"{url}/readyz") as answer:
                    ready = (await answer.json()).get("workers") == [True, True]
                moved = all(found.done or found.frames > was for found, was in zip(searches, before, strict=True))
                if ready and moved:
                    os.kill(workers(supervisor)[kills % 2], signal.SIGKILL)
                    kills += 1
                    for found in searches if kills == 1 else []:
                        found.wanted = found.frames + wanted
    return kills


def main() -> int:
    """The command line; 1 when something was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000)
    frames = parser.parse_args().frames
    everything = []
    for segment in get_args(Segment):
        searches, met = asyncio.run(search_all(frames * 2 // 5, segment))
        everything += searches
        print(json.dumps({"segment": segment, "troubles": met}))
    killed, kills = asyncio.run(search_killed(frames // 5))
    everything += killed
    for found in everything:
        print(json.dumps(found.report()))
    print(json.dumps({"frames": sum(found.frames for found in everything), "workers_killed": kills}))
    return int(any(found.leaks for found in everything))


if __name__ == "__main__":
    sys.exit(main())
