"""A whole box against its promises: workers that scale, and overload that hurts nobody who is in.

    python -m tests.benchmarks.box scaling  [--seconds 20]     two workers on two cores against one on one
    python -m tests.benchmarks.box linear   [--seconds 10]     the cost of a stream at 1, 2, 4, ... streams
    python -m tests.benchmarks.box overload [--seconds 600]    120 % of what is admitted against 80 %

The load comes from this machine too: where figures are CPU of the box, that does not matter; ages are those of a box
that shares its cores with whoever sends.
"""

import argparse
import asyncio
import os
from dataclasses import replace
from typing import Any

from portrait.bench.box import Streams, loaded_box, measure_load
from portrait.bench.report import Kind, table
from tests.benchmarks.processes import family, resident
from tests.benchmarks.stored import RESULTS, report

KIND = Kind("grpc", "360p", "mask only")


async def scaling(seconds: float) -> dict[str, Any]:
    """Streams per box at the same share of CPU, one worker on one core and two on two."""
    rows = {}
    for workers in (1, 2):
        os.sched_setaffinity(0, set(range(workers)))  # what the box inherits
        arguments = ["--workers", str(workers), "--quality-steps", "0", "--max-sessions", "1000"]
        levels = [level async for level in measure_load(arguments, KIND, seconds)]
        os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))
        rows[workers] = levels[-1]
        print(table(levels))
    return {
        "admitted": {workers: level.admitted for workers, level in rows.items()},
        "ratio": round(rows[2].admitted / rows[1].admitted, 2),
        "cpu_ratio": round(2 * rows[1].cpu / rows[2].cpu, 2),
    }


async def linear(seconds: float) -> dict[str, Any]:
    """CPU per frame by the number of streams."""
    levels = [level async for level in measure_load(["--quality-steps", "0", "--max-sessions", "1000"], KIND, seconds)]
    print(table(levels))
    return {"cpu_ms": {level.admitted: level.cpu for level in levels}}


async def overload(seconds: float) -> dict[str, Any]:
    """Ages at 80 % and at 120 % of what the box admits, and its memory meanwhile."""
    arguments = ["--quality-steps", "0", "--max-sessions", "1000"]
    capacity = [level async for level in measure_load(arguments, KIND, 5.0)][-1].admitted
    async with loaded_box(arguments) as box, Streams(box, KIND) as streams:
        await streams.add(max(1, round(0.8 * capacity)))
        calm = await streams.measure(min(seconds, 60.0))
        await streams.add(round(1.2 * capacity) - streams.asked)
        before = _megabytes()
        minutes = range(max(1, round(seconds / 60)))
        parts = [replace(await streams.measure(min(seconds, 60.0)), stages={}) for _ in minutes]
        after = _megabytes()
    print(table([calm, *parts]))
    worst = max(level.age_p99 for level in parts)
    return {
        "capacity": capacity,
        "age_p99_ms": {"at 80 %": calm.age_p99, "at 120 %, worst minute": worst},
        "ratio": round(worst / calm.age_p99, 2),
        "refused": parts[-1].asked - parts[-1].admitted,
        "rss_mb": {"before": before, "after": after},
    }


def _megabytes() -> float:
    """Memory of what this process has started: the box and its workers."""
    return round(resident(family(os.getpid())[1:]) / 2**20, 1)


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["scaling", "linear", "overload"])
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--json", action="store_true", help="keep the figures in results/box-WHAT.json")
    parsed = parser.parse_args()
    work = {"scaling": (scaling, 20.0), "linear": (linear, 10.0), "overload": (overload, 600.0)}
    run, usual = work[parsed.what]
    seconds = parsed.seconds or usual
    figures = asyncio.run(run(seconds))
    report({"seconds": seconds, **figures}, RESULTS / f"box-{parsed.what}.json" if parsed.json else None)


if __name__ == "__main__":
    main()
