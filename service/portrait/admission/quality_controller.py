"""The governor: how good results may be. Measurements in, a step out; no clock, no threads of its own."""

from dataclasses import dataclass

from portrait.admission.quality import Quality

HIGH_CPU = 0.9
"""Share of the budget above which quality goes down. Admission stops at 0.8 of it, at the least quality."""

LOW_CPU = 0.75
"""Share of the budget that the next better step may be expected to take for quality to go up."""

HIGH_LAG, LOW_LAG = 0.05, 0.02
"""Seconds that the event loop is late: too much, and little enough."""

HIGH_AGE, LOW_AGE = 0.066, 0.04
"""Seconds from a frame's arrival to its result: two frames' intervals are too much."""

DOWN_SECONDS, UP_SECONDS = 1.0, 5.0
"""How long it must be bad before the next step down, and good before the next step up."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """What was measured over the last second."""

    cpu: float
    """Share of the budget in use."""
    cpu_better: float
    """Share that would be in use one step up."""
    lag: float
    """Median lateness of the event loop, in seconds."""
    age: float
    """Median age of live results, in seconds."""

    @property
    def high(self) -> bool:
        """Whether it must not stay so."""
        return self.cpu > HIGH_CPU or self.lag > HIGH_LAG or self.age > HIGH_AGE

    @property
    def low(self) -> bool:
        """Whether there is room for a better quality. Between the two nothing changes."""
        return not self.high and self.cpu_better < LOW_CPU and self.lag < LOW_LAG and self.age < LOW_AGE


class QualityController:
    """The quality in force; `lowest` is how far it may go down."""

    def __init__(self, lowest: Quality) -> None:
        self.lowest = lowest
        self.quality = Quality.FULL
        self.saturated = False
        """Whether quality is as low as it may go and pressure is still high."""
        self._high_since: float | None = None
        self._low_since: float | None = None

    def note(self, now: float, pressure: Pressure) -> int:
        """Decide by what was measured until `now`, in seconds: 1 for a step down, -1 for one up, 0 for neither."""
        self._high_since = (self._high_since if self._high_since is not None else now) if pressure.high else None
        self._low_since = (self._low_since if self._low_since is not None else now) if pressure.low else None
        too_long = self._high_since is not None and now - self._high_since >= DOWN_SECONDS
        self.saturated = too_long and self.quality == self.lowest
        if too_long and self.quality < self.lowest:
            return self._go(1)
        if self._low_since is not None and now - self._low_since >= UP_SECONDS and self.quality > Quality.FULL:
            return self._go(-1)
        return 0

    def _go(self, step: int) -> int:
        self.quality = Quality(self.quality + step)
        # What was measured until now was measured at the other step.
        self._high_since = self._low_since = None
        return step
