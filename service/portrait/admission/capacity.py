"""Capacity: how many cores the box's streams take, whether one more fits, and how good results may be meanwhile."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from statistics import median
from typing import Protocol

from portrait.admission.cost_model import CostModel, Demand
from portrait.admission.quality import Quality
from portrait.admission.quality_controller import Pressure, QualityController
from portrait.errors import OutOfCpu
from portrait.workers.shared_state import SharedState

logger = logging.getLogger(__name__)

PERIOD = 0.25
"""Seconds between two looks at the event loop; the rest is measured over a second."""

SETTLED_SECONDS = 3.0
"""A stream is taken for what it said until it has run for so long."""

TRUSTED_CORES = 0.1
"""From so much expected use on, what is measured says how far expectation is off; below, start-up and scrapes rule."""

CORRECTION = (0.5, 3.0)
"""How far measurement may correct the expectation, down and up."""

RETRY_AFTER = 5.0
"""Seconds a refused client is told to wait."""


class Stream(Protocol):
    """What capacity asks of a session."""

    @property
    def demand(self) -> Demand:
        """What it asks for, by what has arrived so far."""

    @property
    def age(self) -> float | None:
        """Seconds from arrival to result of its last frame; None when it is not live or none came lately."""

    @property
    def done_rate(self) -> float:
        """Results per second."""

    @property
    def settled(self) -> bool:
        """Whether it has run for SETTLED_SECONDS."""

    def believe(self) -> None:
        """Take what arrives now for all it asks for, until more does."""


class Meter(Protocol):
    """What capacity asks of metrics."""

    def lag(self, seconds: float) -> None:
        """Note how late the event loop ran."""

    def quality_changed(self, quality: int, step: int) -> None:
        """Note a step down (1) or up (-1)."""

    def capacity_used(self, used: float, committed: float) -> None:
        """Note this worker's cores."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the operator allows."""

    budget: float
    """Cores of the box."""
    share: float
    """Share of them that streams are admitted to; 0: admission does not count cores."""
    lowest: Quality
    """How far quality may go down."""


class Capacity:
    """One worker's part of the box. `watch` runs beside everything else; it is the only one that changes anything."""

    def __init__(self, costs: CostModel | None, board: SharedState, limits: Limits, meter: Meter) -> None:
        self._costs, self._board, self._limits, self._meter = costs, board, limits, meter
        self._governor = QualityController(limits.lowest)
        self._correction = 1.0
        self.list_open: Callable[[], Iterable[Stream]] = tuple
        """Gives the open sessions."""

    @property
    def quality(self) -> Quality:
        """What live streams get now."""
        return self._governor.quality

    @property
    def counts(self) -> bool:
        """Whether streams are counted by what they cost."""
        return self._costs is not None

    def learn(self, costs: CostModel) -> None:
        """Count with other costs from now on; a part that is no longer among them costs what it did."""
        kept = {} if self._costs is None else self._costs.parts
        self._costs = replace(costs, parts={**kept, **costs.parts})

    def in_force(self) -> Quality:
        """`quality`, as something to call."""
        return self.quality

    def smaller(self, model: str) -> str | None:
        """The name of a cheaper model for the step SMALLER."""
        return None if self._costs is None else self._costs.smaller.get(model)

    def refusal(self, demand: Demand) -> OutOfCpu | None:
        """Why one more stream does not fit, if it does not. The first of a box always does."""
        if self._costs is None or not self._limits.share:
            return None
        if self._governor.saturated:
            return OutOfCpu("results would be late: quality is as low as it may go already", RETRY_AFTER)
        # Those that came since the last look are in no row yet.
        rows = self._board.rows
        committed = sum(row.committed for row in rows) - rows[self._board.index].committed + self._committed()
        wanted = self._costs.cores(demand, self._limits.lowest) * self._correction
        limit = self._limits.share * self._limits.budget
        if committed and committed + wanted > limit:
            return OutOfCpu(
                f"{committed:.2f} of {limit:.2f} cores are taken; one more such stream takes {wanted:.2f}", RETRY_AFTER
            )
        return None

    async def watch(self) -> None:
        """Measure, tell the board, and let the governor decide. Runs until cancelled."""
        loop = asyncio.get_running_loop()
        lags: deque[float] = deque(maxlen=round(1 / PERIOD))
        measured_at, cpu = time.monotonic(), time.process_time()
        while True:
            due = loop.time() + PERIOD
            await asyncio.sleep(PERIOD)
            lags.append(max(0.0, loop.time() - due))
            self._meter.lag(lags[-1])
            now = time.monotonic()
            if now - measured_at < 1.0:
                self._board.tell()
                continue
            used = (time.process_time() - cpu) / (now - measured_at)
            measured_at, cpu = now, time.process_time()
            try:
                self._note(now, used, median(lags))
            except Exception:
                # Nobody waits for this task, and nothing else looks after the box: it goes on with the next second.
                logger.exception("quality and room could not be looked at")

    def _note(self, now: float, used: float, lag: float) -> None:
        self._correct(used)
        committed = self._committed()
        self._board.tell(used=used, committed=committed, saturated=self._governor.saturated)
        self._meter.capacity_used(used, committed)
        quality, pressure = self.quality, self._pressure(lag)
        if quality is Quality.FULL and pressure.low:
            # Only now: a gRPC client that is answered late sends less than it would like to.
            for stream in self.list_open():
                stream.believe()
        step = self._governor.note(now, pressure)
        if step:
            self._meter.quality_changed(self.quality, step)
            logger.warning("quality %s: %s -> %s", "down" if step > 0 else "up", quality.name, self.quality.name)

    def _pressure(self, lag: float) -> Pressure:
        budget = self._limits.budget
        cpu = sum(row.used for row in self._board.rows) / budget
        ages = [stream.age for stream in self.list_open()]
        live = [age for age in ages if age is not None]
        better = Quality(max(Quality.FULL, self.quality - 1))
        now, then = self._expected(self.quality), self._expected(better)
        # An idle worker's lag is its neighbours' doing, and no quality of its own would help.
        return Pressure(
            cpu=cpu if live else 0.0,
            cpu_better=cpu * then / now if now else cpu,
            lag=lag if live else 0.0,
            age=median(live) if live else 0.0,
        )

    def _expected(self, quality: Quality) -> float:
        """Cores of the streams of this worker at a quality, uncorrected."""
        costs = self._costs
        return 0.0 if costs is None else sum(costs.cores(stream.demand, quality) for stream in self.list_open())

    def _committed(self) -> float:
        return self._expected(self._limits.lowest) * self._correction

    def _correct(self, used: float) -> None:
        """Bring expectation and measurement together, slowly."""
        if self._costs is None:
            return
        streams = list(self.list_open())
        if not streams or not all(stream.settled for stream in streams):
            return
        # By what was done: what had no turn cost nothing.
        expected = sum(
            self._costs.cores(replace(stream.demand, rate=min(stream.demand.rate, stream.done_rate)), self.quality)
            for stream in streams
        )
        if expected >= TRUSTED_CORES:
            low, high = CORRECTION
            self._correction += 0.2 * (min(high, max(low, used / expected)) - self._correction)
