"""StreamLoad: what one open stream asks of the box, assumed at first and measured as frames come."""

from collections import deque
from dataclasses import replace

from portrait.admission.cost_model import Demand

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
