"""A consumer slower than its camera: later frames are not older frames. `tests/benchmarks/slow.py` runs longer."""

import asyncio
from asyncio import timeout

import numpy as np
import pytest

from portrait.sessions.session import Session
from tests.benchmarks.slow import memory, under_load
from tests.timing import at_most


async def ages(session: Session[object, object], count: int) -> list[float]:
    """How old the next so many results are, in seconds."""
    found, done = list[float](), session.counters.done
    async with timeout(60):
        while len(found) < count:
            await asyncio.sleep(0.005)
            if session.counters.done != done:
                done = session.counters.done
                found.append(session.load.latency)
    return found


@pytest.mark.timing
async def test_a_slow_consumer_falls_no_further_behind_and_what_it_misses_is_counted() -> None:
    async with under_load() as sessions:
        [numbers] = sessions.describe()
        session = sessions[numbers["id"]]
        early, before = await ages(session, 30), memory()
        async with timeout(60):
            # As many as aiortc's queues would hold by now: ten frames would be a third of a second.
            while session.counters.dropped < 30 or session.counters.done < 80:
                await asyncio.sleep(0.05)
        late = await ages(session, 30)
        # A queue would make every result late, and all but a few of these are as late as the machine is busy.
        assert min(late) < 2 * np.median(early) + 0.02
        at_most("median age of a late result, as a share of an early one's", np.median(late) / np.median(early), 2.5)
        assert memory() - before < 20
