"""Capacity: how many cores the box's streams take, whether one more fits, and which quality they get meanwhile.

Each open stream is a StreamLoad, charged as assumed at first and as measured when its frames have come.
"""

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass, replace
from math import inf
from statistics import median

from portrait.admission.cost_model import DECODES_ALL, CostModel, Demand
from portrait.admission.quality import Quality
from portrait.admission.quality_controller import Pressure, QualityController
from portrait.errors import OutOfCpu
from portrait.metrics import Metrics
from portrait.workers.shared_state import SharedState

logger = logging.getLogger(__name__)

PERIOD = 0.25
"""Seconds between two measurements of the event loop's lag; everything else is measured over a second."""

TRUSTED_CORES = 0.1
"""The cost model is corrected only above this many expected cores; below, start-up and scrapes dominate."""

CORRECTION = (0.5, 3.0)
"""Limits of the factor by which measurements correct the cost model."""

RETRY_AFTER = 5.0
"""Seconds after which a refused client should try again."""

SETTLED_SECONDS = 3.0
"""A stream is charged what was assumed for it until it has run this long."""

RATE_SECONDS = 2.0
"""Rates are averaged over this window."""


class StreamLoad:
    """One stream's demand and the figures behind it. Used on the event loop only.

    Every time is in seconds of the monotonic clock. `assumed` is what admission charges before the first frame.
    """

    def __init__(self, assumed: Demand, opened: float) -> None:
        self.width = self.height = 0
        """Size of the last picture that came; 0 before the first."""
        self.latency = 0.0
        """Seconds from arrival to result of the last frame."""
        self._assumed, self._opened = assumed, opened
        self._measured_rate: float | None = None
        self._arrivals: deque[float] = deque(maxlen=120)
        self._results: deque[float] = deque(maxlen=60)
        self._refusals: deque[float] = deque(maxlen=60)

    def set_mode(self, mode: str) -> None:
        """Charge for another output mode from now on."""
        self._assumed = replace(self._assumed, mode=mode)

    def add_result(self, now: float, arrived: float, size: tuple[int, int]) -> None:
        """Record a result of a frame that came at `arrived` with this (width, height)."""
        self.width, self.height = size
        self.latency = now - arrived
        self._results.append(now)
        self._arrivals.append(arrived)

    def add_refused(self, now: float, size: tuple[int, int] | None) -> None:
        """Record a frame that was refused after it had been decoded or examined; `size` where it is known."""
        if size is not None:
            self.width, self.height = size
        self._refusals.append(now)
        self._arrivals.append(now)

    def add_dropped(self, now: float, count: int) -> None:
        """Record frames that were dropped for newer ones."""
        self._arrivals.extend([now] * min(count, 60))

    def demand(self, now: float) -> Demand:
        """What the stream asks for, by what has arrived so far."""
        assumed = self._assumed
        rate = assumed.rate if self._measured_rate is None else max(self._measured_rate, self.arrival_rate(now))
        return replace(assumed, pixels=self.width * self.height or assumed.pixels, rate=rate)

    def trust_measured_rate(self, now: float) -> None:
        """From now on charge the rate that arrives now instead of the assumed one, until more arrives."""
        if self.is_settled(now):
            self._measured_rate = self.arrival_rate(now)

    def is_settled(self, now: float) -> bool:
        """Whether the stream has run long enough for its measurements to count."""
        return now - self._opened > SETTLED_SECONDS

    def age(self, now: float) -> float | None:
        """Seconds from arrival to result of the last frame; None if not live or without a result for a second."""
        is_live = self._assumed.adaptive and self._results and now - self._results[-1] < 1.0
        return self.latency if is_live else None

    def arrival_rate(self, now: float) -> float:
        """Frames that arrived, per second."""
        return _rate(self._arrivals, now)

    def result_rate(self, now: float) -> float:
        """Results per second."""
        return _rate(self._results, now)

    def refusal_rate(self, now: float) -> float:
        """Refused frames per second."""
        return _rate(self._refusals, now)


def _rate(moments: deque[float], now: float) -> float:
    recent = [moment for moment in moments if now - moment < RATE_SECONDS]
    return (len(recent) - 1) / span if len(recent) > 1 and (span := recent[-1] - recent[0]) > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the operator allows."""

    budget: float
    """Cores of the box."""
    share: float
    """Share of them that streams are admitted to; 0: admission does not count cores."""
    lowest: Quality
    """How far quality may go down."""


UNLIMITED = Limits(budget=inf, share=0.0, lowest=Quality.FULL)
"""Admits every stream at full quality."""


class Capacity:
    """One worker's part of the box: the loads of its streams, and the quality they get.

    Without `costs` cores are not counted. `watch` is the task that measures and changes the quality.
    """

    def __init__(
        self, costs: CostModel | None, shared: SharedState, metrics: Metrics, limits: Limits = UNLIMITED
    ) -> None:
        self._costs, self._shared, self._metrics, self._limits = costs, shared, metrics, limits
        self._controller = QualityController(limits.lowest, costs is not None and bool(costs.finer))
        self._correction = 1.0
        self._loads: set[StreamLoad] = set()

    @property
    def quality(self) -> Quality:
        """What live streams get now."""
        return self._controller.quality

    @property
    def finer(self) -> bool:
        """Whether live streams get finer models now, where there are any."""
        return self._controller.finer

    def milliseconds(self, model: str) -> float | None:
        """Milliseconds of CPU in which this machine segments a frame of 640x480; None if it was not measured."""
        return None if self._costs is None else self._costs.milliseconds(model)

    @property
    def counts_cores(self) -> bool:
        """Whether streams are charged for their CPU."""
        return self._costs is not None

    def add(self, load: StreamLoad) -> None:
        """Charge for a stream until `remove`."""
        self._loads.add(load)

    def remove(self, load: StreamLoad) -> None:
        """No longer charge for a stream."""
        self._loads.discard(load)

    def update_costs(self, costs: CostModel) -> None:
        """Use other costs from now on. What they lack keeps its old figure: open streams may still use an old model."""
        if self._costs is not None:
            costs = replace(costs, parts={**self._costs.parts, **costs.parts})
        self._costs = costs

    def cheaper_model(self, model: str) -> str | None:
        """Name of the model that replaces `model` at Quality.SMALLER, if there is one."""
        return None if self._costs is None else self._costs.cheaper.get(model)

    def refusal(self, *demands: Demand) -> OutOfCpu | None:
        """Why one more stream, of these demands, does not fit; None when it does. A box's first stream always fits."""
        if self._costs is None or not self._limits.share:
            return None
        if self._controller.saturated:
            return OutOfCpu("results would be late: quality is as low as it may go already", RETRY_AFTER)
        # This worker's row lacks the streams that were opened since the last measurement.
        rows = self._shared.rows
        others = sum(row.committed for row in rows) - rows[self._shared.index].committed
        committed = others + self._committed(time.monotonic())
        cores = sum(self._costs.cores(demand, self._limits.lowest) for demand in demands)
        wanted = cores * self._correction
        limit = self._limits.share * self._limits.budget
        if committed and committed + wanted > limit:
            return OutOfCpu(
                f"{committed:.2f} of {limit:.2f} cores are taken; one more such stream takes {wanted:.2f}", RETRY_AFTER
            )
        return None

    async def watch(self) -> None:
        """Measure, tell the other workers, and set the quality, every second until cancelled."""
        loop = asyncio.get_running_loop()
        lags: deque[float] = deque(maxlen=round(1 / PERIOD))
        measured_at, cpu = time.monotonic(), time.process_time()
        while True:
            due = loop.time() + PERIOD
            await asyncio.sleep(PERIOD)
            lags.append(max(0.0, loop.time() - due))
            self._metrics.lag(lags[-1])
            now = time.monotonic()
            if now - measured_at < 1.0:
                self._shared.tell()
                continue
            used = (time.process_time() - cpu) / (now - measured_at)
            measured_at, cpu = now, time.process_time()
            try:
                self._update(now, used, median(lags))
            except Exception:
                # No task awaits this one, and nothing else adapts the quality: it must survive to the next second.
                logger.exception("quality and capacity could not be updated")

    def _update(self, now: float, used: float, lag: float) -> None:
        """Take the last second into account: cores `used` by this process and the loop's median `lag` in seconds."""
        self._correct(now, used)
        committed = self._committed(now)
        self._shared.tell(used=used, committed=committed, saturated=self._controller.saturated)
        self._metrics.capacity_used(used, committed)
        quality, pressure = self.quality, self._pressure(now, lag)
        if quality is Quality.FULL and pressure.low:
            # Never under pressure: a gRPC client that is answered late sends less than it would like to.
            for load in self._loads:
                load.trust_measured_rate(now)
        finer = self.finer
        step = self._controller.update(now, pressure)
        if self.finer != finer:
            logger.info("live streams get %s models", "finer" if self.finer else "their own")
        if step:
            self._metrics.quality_changed(self.quality, step)
            logger.warning("quality %s: %s -> %s", "down" if step > 0 else "up", quality.name, self.quality.name)

    def _pressure(self, now: float, lag: float) -> Pressure:
        if not self._loads:
            # What an idle worker measures is the load of others, which no quality of its own would reduce.
            return Pressure(cpu=0.0, cpu_better=0.0, lag=0.0, age=0.0)
        cpu = sum(row.used for row in self._shared.rows) / self._limits.budget
        better = Quality(max(Quality.FULL, self.quality - 1))
        expected, expected_better = self._expected(now, self.quality, self.finer), self._expected(now, better)
        expected_finer = self._expected(now, Quality.FULL, finer=True)
        ages = [age for load in self._loads if (age := load.age(now)) is not None]
        return Pressure(
            cpu=cpu,
            cpu_better=cpu * expected_better / expected if expected else cpu,
            lag=lag if ages else 0.0,
            age=median(ages) if ages else 0.0,
            cpu_finer=cpu * expected_finer / expected if expected else inf,
        )

    def _expected(self, now: float, quality: Quality, finer: bool = False) -> float:
        """Cores of this worker's streams at a quality, or with finer models, uncorrected."""
        costs = self._costs
        return 0.0 if costs is None else sum(costs.cores(load.demand(now), quality, finer) for load in self._loads)

    def _committed(self, now: float) -> float:
        return self._expected(now, self._limits.lowest) * self._correction

    def _correct(self, now: float, used: float) -> None:
        """Bring the cost model and the measurement together, slowly."""
        costs, quality = self._costs, self.quality
        if costs is None or not self._loads or not all(load.is_settled(now) for load in self._loads):
            return
        # By what was done, not by what was asked for: a frame that was dropped undecoded cost nothing.
        expected = 0.0
        for load in self._loads:
            demand, done = load.demand(now), load.result_rate(now)
            decoded = load.arrival_rate(now) if demand.transport in DECODES_ALL else done + load.refusal_rate(now)
            expected += costs.cores_used(demand, quality, decoded, done, self.finer)
        if expected >= TRUSTED_CORES:
            low, high = CORRECTION
            self._correction += 0.2 * (min(high, max(low, used / expected)) - self._correction)
