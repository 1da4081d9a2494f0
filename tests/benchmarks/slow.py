"""A network made slow on purpose, 50 ms a frame, under a camera of 30 per second: `python -m tests.benchmarks.slow`.

Prints how old a result is, the process's memory and the frames given up, after 5 s and at the end: age and memory must
not grow, frames must be given up. aiortc as it comes is seconds late by then (docs/operate/tuning.md).
"""

import argparse
import asyncio
import sys
import time
from asyncio import timeout
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from portrait.image.frame import Frame, Mask
from portrait.sessions.registry import Sessions
from portrait.sessions.session import Session
from tests.benchmarks.stored import add_option, report
from tests.fakes import FakeModel, full_mask
from tests.rtc import fake_service

SLOW = 0.05


@dataclass(frozen=True)
class Reading:
    """The state of a session after so many seconds. Milliseconds and megabytes."""

    seconds: float
    age_median: float
    age_p99: float
    memory: float
    done: int
    dropped: int


def slow_mask(frame: Frame) -> Mask:
    """Everything is the person, after a while."""
    time.sleep(SLOW)
    return full_mask(frame)


def memory() -> float:
    """Megabytes of this process in memory."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmRSS:")).split()[1]) / 1024


async def read(session: Session[object, object], seconds: float, began: float) -> Reading:
    """Watch a session's results for `seconds`."""
    ages, done = [], session.counters.done
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(SLOW / 5)
        if session.counters.done != done:
            done = session.counters.done
            ages.append(1000 * session.load.latency)
    counters = session.counters
    return Reading(
        round(time.monotonic() - began, 1),
        float(np.median(ages)),
        float(np.percentile(ages, 99)),
        round(memory(), 1),
        counters.done,
        counters.dropped,
    )


@asynccontextmanager
async def under_load() -> AsyncIterator[Sessions]:
    """A service with the slow network, and a client in a process of its own that sends 30 frames per second."""
    async with fake_service(FakeModel(slow_mask)) as (url, sessions):
        command = (sys.executable, "-m", "tests.rtc_client", url, "--frames", "1000000")
        client = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        try:
            async with timeout(60):
                while not any(session["frames_done"] for session in sessions.describe()):
                    await asyncio.sleep(0.05)
            yield sessions
        finally:
            client.kill()
            await client.wait()


async def run(seconds: float) -> list[Reading]:
    """Two readings of two seconds each: from the third second on, and the last ones."""
    async with under_load() as sessions:
        [numbers] = sessions.describe()
        session, began = sessions[numbers["id"]], time.monotonic()
        await asyncio.sleep(3)
        first = await read(session, 2, began)
        await asyncio.sleep(seconds - 7)
        return [first, await read(session, 2, began)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    add_option(parser, "slow")
    parsed = parser.parse_args()
    early, late = asyncio.run(run(parsed.seconds))
    report({"early": asdict(early), "late": asdict(late)}, parsed.json)


if __name__ == "__main__":
    main()
