"""QualityController: turns measurements into steps of quality. It has no clock and no thread of its own."""

from dataclasses import dataclass
from math import inf

from portrait.admission.quality import Quality

HIGH_CPU = 0.9
"""Share of the budget above which quality goes down. Admission stops at 0.8 of it, counted at the lowest quality."""

LOW_CPU = 0.75
"""Quality goes up only if the better step is expected to take less than this share of the budget."""

HIGH_LAG, LOW_LAG = 0.05, 0.02
"""Seconds by which the event loop is late: too much, and little enough."""

HIGH_AGE, LOW_AGE = 0.066, 0.04
"""Seconds from a frame's arrival to its result. Too much is two frames' intervals."""

FINER_CPU = 0.5
"""A finer model is used only if that is expected to take less than this share of the budget."""

DOWN_SECONDS, UP_SECONDS = 1.0, 5.0
"""How long pressure must be high before a step down, and low before a step up."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """What was measured over the last second."""

    cpu: float
    """Share of the budget in use."""
    cpu_better: float
    """Share that would be in use one step up."""
    lag: float
    """Median lag of the event loop, in seconds."""
    age: float
    """Median age of live results, in seconds."""
    cpu_finer: float = inf
    """Share that would be in use at full quality with finer models."""

    @property
    def high(self) -> bool:
        """Whether quality must go down."""
        return self.cpu > HIGH_CPU or self.lag > HIGH_LAG or self.age > HIGH_AGE

    @property
    def low(self) -> bool:
        """Whether quality may go up. Between high and low it stays."""
        return not self.high and self.cpu_better < LOW_CPU and self.lag < LOW_LAG and self.age < LOW_AGE


class QualityController:
    """The current quality, between FULL and `lowest`, and whether streams get finer models, where `has_finer`."""

    def __init__(self, lowest: Quality, has_finer: bool = False) -> None:
        self.lowest, self._has_finer = lowest, has_finer
        self.finer = False
        """Whether streams get finer models; only at FULL."""
        self.quality = Quality.FULL
        self.saturated = False
        """Whether quality is as low as it may go and pressure is still high."""
        self._high_since: float | None = None
        self._low_since: float | None = None

    def update(self, now: float, pressure: Pressure) -> int:
        """Decide by the pressure measured at `now`, in seconds: 1 for a step down, -1 for a step up, 0 for neither."""
        self._high_since = (self._high_since if self._high_since is not None else now) if pressure.high else None
        self._low_since = (self._low_since if self._low_since is not None else now) if pressure.low else None
        too_long = self._high_since is not None and now - self._high_since >= DOWN_SECONDS
        self.saturated = too_long and self.quality == self.lowest and not self.finer
        if too_long and self.finer:
            return self._set_finer(False)
        if too_long and self.quality < self.lowest:
            return self._change(1)
        if self._low_since is not None and now - self._low_since >= UP_SECONDS:
            if self.quality > Quality.FULL:
                return self._change(-1)
            if self._has_finer and not self.finer and pressure.cpu_finer < FINER_CPU:
                return self._set_finer(True)
        return 0

    def _set_finer(self, finer: bool) -> int:
        self.finer, self._high_since, self._low_since = finer, None, None
        return 0

    def _change(self, step: int) -> int:
        self.quality = Quality(self.quality + step)
        # What was measured so far was measured at the other quality.
        self._high_since = self._low_since = None
        return step
