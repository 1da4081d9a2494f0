"""Two cameras for a while, one of them cut again and again: memory, descriptors and age must stay flat.

`python -m tests.benchmarks.cameras --seconds 3600 --cut 60`. Each camera is a process of GStreamer's RTSP server, and
each is watched over WHEP and over gRPC; the first one is recorded.
"""

import argparse
import asyncio
import json
import re
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import AsyncExitStack, ExitStack, aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import aiohttp
from aiortc.mediastreams import MediaStreamError

from portrait.client import Client, ClientError
from tests.boxes import serving, workers
from tests.films import film, rtsp_camera
from tests.ports import free_port
from tests.whip import watcher

WARM_SECONDS = 20.0
"""Before this nothing is compared: allocators and codecs fill their buffers."""

SAMPLE_SECONDS = 5.0

GONE_SECONDS = 2.0
"""How long the camera that is cut is away each time."""

PARTS = 10
"""Of the time, for the figures on the way."""


@dataclass(frozen=True)
class Sample:
    """How the service stands."""

    seconds: float
    megabytes: float
    descriptors: int
    age_ms: float
    """Mean of the pictures since the sample before."""
    frames: int
    failures: int


class Watched:
    """What the viewers have got."""

    def __init__(self) -> None:
        self.got: Counter[str] = Counter()
        """Pictures and results, by viewer."""
        self.lost: list[str] = []
        """Why a viewer had to connect anew, each time."""

    def lose(self, viewer: str, error: Exception) -> None:
        """Note why a viewer's stream ended."""
        self.lost.append(f"{viewer}: {str(error).strip() or type(error).__name__}")
        print(self.lost[-1], flush=True)


def numbers(page: str, name: str) -> float:
    """The sum of a metric's samples for cameras."""
    text = urllib.request.urlopen(f"{page}/metrics", timeout=60).read().decode()
    found = re.findall(rf'^{name}\{{[^}}]*(?:transport="camera"|camera=")[^}}]*\}} (\S+)$', text, re.MULTILINE)
    return sum(map(float, found))


def memory(processes: list[int]) -> float:
    """Megabytes that these processes have to themselves, or share among each other."""
    total = 0
    for process in processes:
        with suppress(FileNotFoundError):
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
    return total / 1024


def descriptors(processes: list[int]) -> int:
    return sum(len(list(Path(f"/proc/{process}/fd").iterdir())) for process in processes)


async def view(page: str, name: str, seen: Watched) -> None:
    """Watch over WHEP, and again when the stream ends."""
    viewer = f"WHEP, {name}"
    while True:
        try:
            async with watcher(page) as one:
                await one.connect(f"/whep/{name}")
                while True:
                    await one.frame()
                    seen.got[viewer] += 1
        except (AssertionError, TimeoutError, MediaStreamError, aiohttp.ClientError) as error:
            seen.lose(viewer, error)
        await asyncio.sleep(1.0)


async def receive(target: str, name: str, seen: Watched) -> None:
    """Watch over gRPC, and again when the stream ends."""
    viewer = f"gRPC, {name}"
    while True:
        try:
            async with Client(target) as client, aclosing(client.watch(name)) as results:
                async for _ in results:
                    seen.got[viewer] += 1
        except ClientError as error:
            seen.lose(viewer, error)
        await asyncio.sleep(1.0)


async def cut_again(source: Path, port: int, every: float, there: asyncio.Event) -> None:
    """A camera that is there for most of the time."""
    while True:
        with ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, rtsp_camera(source, port=port))
            there.set()
            await asyncio.sleep(every)
        await asyncio.sleep(GONE_SECONDS)


async def measure(seconds: float, every: float) -> dict[str, object]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports, source = (free_port(), free_port()), film(folder / "film.mp4", int(seconds / 0.8) + 200)
        stack.enter_context(rtsp_camera(source, port=ports[0]))
        there = asyncio.Event()
        tasks = [asyncio.create_task(cut_again(source, ports[1], every, there))]
        await there.wait()
        (folder / "cameras.yaml").write_text(
            f"steady: {{url: 'rtsp://127.0.0.1:{ports[0]}/camera', record: '{folder}/recorded', segment_seconds: 30}}\n"
            f"cut: 'rtsp://127.0.0.1:{ports[1]}/camera'\n"
        )
        box = serving("--workers", "1", "--cameras", str(folder / "cameras.yaml"), "--log-level", "error", stderr=-3)
        process, announced = await asyncio.to_thread(stack.enter_context, box)
        page, processes, seen = announced["page"].rstrip("/"), [process.pid, *workers(process.pid)], Watched()
        for name in ("steady", "cut"):
            tasks.append(asyncio.create_task(view(page, name, seen)))
            tasks.append(asyncio.create_task(receive(announced["grpc"], name, seen)))
        samples: list[Sample] = []
        began, before = time.monotonic(), (0.0, 0.0)
        try:
            while (now := time.monotonic() - began) < seconds:
                await asyncio.sleep(SAMPLE_SECONDS)
                for task in tasks:
                    if task.done():  # none of them returns: this raises
                        task.result()
                name = "portrait_frame_age_seconds"
                age = [await asyncio.to_thread(numbers, page, f"{name}_{part}") for part in ("sum", "count")]
                failures = await asyncio.to_thread(numbers, page, "portrait_camera_failures_total")
                frames = age[1] - before[1]
                samples.append(
                    Sample(
                        round(now), round(memory(processes), 1), descriptors(processes),
                        round(1000 * (age[0] - before[0]) / max(1.0, frames), 1), round(frames), round(failures),
                    )
                )  # fmt: skip
                before = age[0], age[1]
                print(samples[-1], flush=True)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return summary(samples, seen, len(list((folder / "recorded").glob("*.mkv"))))


def summary(samples: list[Sample], seen: Watched, segments: int) -> dict[str, object]:
    """The figures that are kept."""
    warm = [sample for sample in samples if sample.seconds >= WARM_SECONDS] or samples
    size = -(-len(warm) // PARTS)
    parts = [warm[i : i + size] for i in range(0, len(warm), size)]
    return {
        "seconds": samples[-1].seconds,
        "failures": samples[-1].failures,
        "megabytes": [round(mean(each.megabytes for each in part), 1) for part in parts],
        "descriptors": [max(each.descriptors for each in part) for part in parts],
        "age_ms": [round(mean(each.age_ms for each in part), 1) for part in parts],
        "got": seen.got,
        "lost": seen.lost,
        "segments": segments,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument(
        "--cut", type=float, default=60.0, help="seconds for which the second camera is there at a time"
    )
    parser.add_argument("--out", type=Path, help="where to keep the figures, as JSON")
    given = parser.parse_args()
    measured = {**asyncio.run(measure(given.seconds, given.cut)), "cut": given.cut}
    text = json.dumps(measured, indent=2)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
