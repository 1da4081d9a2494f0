"""`python -m tests.benchmarks.soak`: a box at its capacity, and beyond, for as long as one likes.

Capacity is what the box admits. For more than that the box is told not to count cores. Every period its own numbers are
read: how old results are, and how much memory its processes hold.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from portrait.bench.box import LoadedBox, Streams, loaded_box
from portrait.bench.counters import read_counters
from portrait.bench.report import Kind

SETTLING = 2.0
"""Seconds between two streams while capacity is looked for: admission corrects itself by what streams really take."""

RSS_SHARE, AGE_SHARE = 0.02, 0.2
"""By how much the last third may be above the one before; of age, 2 ms are always allowed."""

AGE_MARGIN = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One period."""

    at: float
    """Seconds since the first one began."""
    streams: int
    frames_per_second: float
    dropped: float
    age_p50: float
    age_p99: float
    """Milliseconds."""
    rss: float
    """Bytes of the box's workers."""
    cores: float
    quality: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The last third of the time against the one before; the first is for warming up."""

    rss_grown: float
    age_p99_before: float
    age_p99_after: float

    @classmethod
    def of(cls, samples: list[Sample]) -> "Verdict":
        third = max(1, len(samples) // 3)
        before, after = samples[-2 * third : -third] or samples[:1], samples[-third:]
        return cls(
            rss_grown=median(s.rss for s in after) / median(s.rss for s in before) - 1,
            age_p99_before=median(s.age_p99 for s in before),
            age_p99_after=median(s.age_p99 for s in after),
        )

    @property
    def flat(self) -> bool:
        most = self.age_p99_before * (1 + AGE_SHARE) + AGE_MARGIN
        return self.rss_grown <= RSS_SHARE and self.age_p99_after <= most


@asynccontextmanager
async def box_of_its_own(arguments: list[str]) -> AsyncIterator[LoadedBox]:
    """A box on the first half of the cores; whoever asks it has the others, or its load would be theirs as well."""
    cores = sorted(os.sched_getaffinity(0))
    first, others = cores[: max(1, len(cores) // 2)], cores[len(cores) // 2 :]
    async with AsyncExitStack() as stack:
        try:
            os.sched_setaffinity(0, first)  # which the processes that are started here inherit
            box = await stack.enter_async_context(loaded_box(arguments))
            os.sched_setaffinity(0, others)
            yield box
        finally:
            os.sched_setaffinity(0, cores)


async def capacity(arguments: list[str], kind: Kind, most: int) -> int:
    """How many streams of a kind a box admits."""
    async with box_of_its_own(arguments) as box, Streams(box, kind) as streams:
        while not streams.refused and streams.open < most:
            await streams.add(1)
            await asyncio.sleep(SETTLING)
        return streams.open


async def soak(arguments: list[str], kind: Kind, count: int, seconds: float, period: float) -> list[Sample]:
    """`count` streams on a box that refuses nobody, for so long."""
    samples: list[Sample] = []
    loop = asyncio.get_running_loop()
    async with box_of_its_own([*arguments, "--cpu-share", "0"]) as box, Streams(box, kind) as streams:
        await streams.add(count)
        began = loop.time()
        while loop.time() - began < seconds:
            level = await streams.measure(period)
            counters = await asyncio.to_thread(read_counters, box.page)
            rss = counters.total("process_resident_memory_bytes")
            samples.append(
                Sample(
                    round(loop.time() - began, 1), streams.open, level.frames_per_second, level.dropped,
                    level.age_p50, level.age_p99, rss, level.cores, level.quality,
                )
            )  # fmt: skip
    return samples


def plot(runs: dict[str, list[Sample]], path: Path) -> None:
    """Age and memory over time, a column for each run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(runs), 5.5), layout="constrained")
    axes = figure.subplots(2, len(runs), squeeze=False, sharex="col", sharey="row")
    for column, (name, samples) in enumerate(runs.items()):
        minutes = [sample.at / 60 for sample in samples]
        ages, memory = axes[0][column], axes[1][column]
        ages.plot(minutes, [sample.age_p99 for sample in samples], color="tab:red", label="age p99")
        ages.plot(minutes, [sample.age_p50 for sample in samples], color="tab:orange", label="age p50")
        ages.set(title=f"{name}: {samples[-1].streams} streams", ylabel="ms", ylim=(0, None))
        ages.legend(loc="upper right")
        memory.plot(minutes, [sample.rss / 2**20 for sample in samples], color="tab:blue")
        memory.set(xlabel="minutes", ylabel="RSS, MB", ylim=(0, None))
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


async def run(parsed: argparse.Namespace) -> dict[str, Any]:
    kind = Kind(*parsed.kind.split(","))
    arguments = ["--workers", str(parsed.workers), *parsed.serve]
    most = parsed.streams or await capacity(arguments, kind, parsed.most)
    print(f"capacity: {most} streams", file=sys.stderr)
    runs: dict[str, list[Sample]] = {}
    for load in parsed.loads:
        runs[f"{load} %"] = await soak(arguments, kind, max(1, round(most * load / 100)), parsed.seconds, parsed.period)
    if parsed.plot:
        plot(runs, parsed.plot)
    verdicts = {name: Verdict.of(samples) for name, samples in runs.items()}
    return {
        "kind": parsed.kind,
        "capacity": most,
        "seconds": parsed.seconds,
        "verdicts": {name: asdict(verdict) | {"flat": verdict.flat} for name, verdict in verdicts.items()},
        "samples": {name: [asdict(sample) for sample in samples] for name, samples in runs.items()},
        "ok": all(verdict.flat for verdict in verdicts.values()),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0, help="of each load")
    parser.add_argument("--period", type=float, default=8.0, help="seconds of a sample, and two more")
    parser.add_argument("--loads", type=int, nargs="+", default=[100, 120], help="percent of capacity")
    parser.add_argument("--kind", default="grpc,360p,mask only", help="as in `portrait bench --load`")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--streams", type=int, help="take this for the capacity instead of looking for it")
    parser.add_argument("--most", type=int, default=128, help="look no further than this many streams")
    parser.add_argument("--out", type=Path, help="write the result there as well, as JSON")
    parser.add_argument("--plot", type=Path, help="draw it there; needs matplotlib")
    parser.add_argument("--serve", nargs="*", default=[], help="further arguments of `portrait serve`")
    parsed = parser.parse_args(arguments)
    result = asyncio.run(run(parsed))
    print(json.dumps({name: result[name] for name in result if name != "samples"}, indent=2))
    if parsed.out:
        parsed.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
