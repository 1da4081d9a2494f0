"""gRPC streams under load: `python -m tests.benchmarks.streams [--only plain|core] [--json FILE]`.

plain: our server, the first version of `plain.py` and, where `make .venv-pytriton/ready` has installed it, NVIDIA
Triton, in turns within one run: 720p JPEG in, 8-bit mask out, four streams whose cameras know nothing of each other.
core: how many streams of 224-pixel JPEG one core serves at 30 frames per second with a p99 round trip of 33 ms.
Both say what the least is that could be had: `bare`, gRPC that answers at once, and the network alone.

CPU is the server's, with the kernel's share. Round trips are measured at the client, a process of its own.
Nothing else may run on the machine.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import time

import cv2
from ai_edge_litert.interpreter import Interpreter

from portrait.core.segmenters import EMBEDDED
from tests import people
from tests.benchmarks.driven import (
    TRITON,
    Load,
    drive,
    nobodys,
    ours,
    theirs,
    triton,
)
from tests.benchmarks.stored import add_option, report

RATE = 30.0
LIMIT = 0.033
"""Seconds of a round trip: one frame at that rate."""


def jpegs(width: int, height: int, quality: int, count: int = 30) -> list[bytes]:
    """A person before a room: photographs where there are some, else drawn."""
    photographs = sorted((people.DATA / "backgrounds").glob("*.jpg"))
    behind = cv2.resize(cv2.imread(str(photographs[0])), (width, height)) if photographs else None
    frames = people.clip(width, height, count, background=behind).frames
    return [cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes() for frame in frames]


def chance_phases(streams: int, seed: int) -> list[float]:
    """When each camera begins, as a part of a frame's time."""
    dice = random.Random(seed)
    return [dice.random() for _ in range(streams)]


async def against_plain(rate: float, rounds: int, seconds: float, streams: int = 4) -> dict[str, object]:
    """All servers up, one at work: by turns."""
    pictures = jpegs(1280, 720, 85)
    async with contextlib.AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(each())
            for each in (ours, theirs, nobodys, *([triton] if TRITON.exists() else []))
        ]
        loads = {server.name: Load() for server in servers}
        for number in range(rounds):
            phases = chance_phases(streams, seed=number)
            for server in servers if number % 2 else reversed(servers):
                await drive(server, pictures, phases, rate, seconds, loads[server.name])
    found = {name: load.summary() for name, load in loads.items()}
    keys = ("cpu_ms_per_frame", "p50_ms", "p99_ms")
    ratios = {
        f"ours_to_{name}": {key: round(found["ours"][key] / found[name][key], 3) for key in keys}
        for name in found
        if name not in ("ours", "bare")
    }
    return {"streams": streams, "rate": rate, **found, **ratios}


async def per_core(model: str, least: int, seconds: float) -> dict[str, object]:
    """The most streams that one core serves in time, from `least` upwards (or the first below it)."""
    pictures, cores = jpegs(224, 224, 90), sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(cores[1:]) or set(cores))
    try:
        async with ours(model, {cores[0]}) as server:
            best: dict[str, object] = {}
            streams, step = least, 1
            while 0 < streams <= 100:
                load = Load()
                await drive(server, pictures, chance_phases(streams, seed=0), RATE, seconds, load)
                found = {"streams": streams, **load.summary()}
                print(json.dumps({"model": model, **found}), flush=True)
                served = not load.skipped and found["p99_ms"] <= 1000 * LIMIT
                if served:
                    best = found
                elif streams <= least:
                    step = -1
                if served == (step < 0):
                    break
                streams += step
        async with nobodys({cores[0]}) as server:
            bare = Load()
            await drive(server, pictures, chance_phases(least, seed=0), RATE, seconds, bare)
    finally:
        os.sched_setaffinity(0, set(cores))
    least_ms = {"grpc": bare.summary()["cpu_ms_per_frame"], "network": network_ms(model)}
    return {"model": model, "asked": least, **best, "least_ms": least_ms}


def network_ms(model: str, seconds: float = 3.0) -> float:
    """CPU of the network alone, again and again with nothing between: milliseconds."""
    interpreter = Interpreter(model_path=str(EMBEDDED / f"{model}.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.invoke()
    began, worked, count = time.monotonic(), time.process_time(), 0
    while time.monotonic() - began < seconds:
        interpreter.invoke()
        count += 1
    return round(1000 * (time.process_time() - worked) / count, 3)


async def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """All that was asked for."""
    found: dict[str, object] = {}
    if arguments.only != "core":
        rows = []
        for rate in arguments.rate:
            rows.append(await against_plain(rate, arguments.rounds, arguments.seconds))
            print(json.dumps(rows[-1], indent=1), flush=True)
        found["against_plain"] = rows
    if arguments.only != "plain":
        goals = (("portrait", 14), ("portrait-int8", 18))
        found["streams_per_core"] = [await per_core(model, goal, arguments.seconds) for model, goal in goals]
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["plain", "core"])
    parser.add_argument("--rate", type=float, nargs="+", default=[15.0, RATE], help="frames per second and stream")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each server")
    parser.add_argument("--seconds", type=float, default=8.0, help="of a turn")
    add_option(parser, "streams")
    arguments = parser.parse_args()
    report(asyncio.run(measure(arguments)), arguments.json)


if __name__ == "__main__":
    main()
