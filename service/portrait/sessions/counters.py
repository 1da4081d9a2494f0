"""A session's counts, and what they say about what it asks for."""

from collections import deque
from dataclasses import dataclass, field

from portrait.admission.cost_model import NOMINAL_RATE, STILL_RATE, Demand
from portrait.admission.quality import Delivery


def first_demand(transport: str, mode: str, model: str, delivery: Delivery) -> Demand:
    """What a session is taken for before its first frame has come."""
    rate = STILL_RATE if delivery is Delivery.STILL else NOMINAL_RATE
    return Demand(transport, mode, model, rate=rate, adaptive=delivery is Delivery.LIVE)


@dataclass(slots=True)
class Counters:
    """A session's counts; written on the event loop only."""

    done: int = 0
    dropped: int = 0
    failed: int = 0
    refused: int = 0
    width: int = 0
    height: int = 0
    latency: float = 0.0
    """Seconds from arrival to result of the last frame."""
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=60))
    """When results were done."""
    arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=120))
    """When frames had come, those that were given up among them."""

    @property
    def ends(self) -> dict[str, int]:
        """How frames ended, by the names of documents and logs."""
        return {
            "frames_done": self.done,
            "frames_dropped": self.dropped,
            "frames_failed": self.failed,
            "frames_refused": self.refused,
        }

    def describe(self, now: float) -> dict[str, float]:
        """All of them, for people and programs."""
        return {
            "width": self.width,
            "height": self.height,
            **self.ends,
            "frames_per_second": round(self.rate(now), 1),
            "latency_seconds": round(self.latency, 4),
        }

    def note(self, now: float, arrived: float, size: tuple[int, int]) -> None:
        """Take a result into account."""
        self.width, self.height = size
        self.latency = now - arrived
        self.recent.append(now)
        self.arrivals.append(arrived)

    def rate(self, now: float) -> float:
        """Results per second over the last two seconds."""
        return _rate(self.recent, now)

    def arriving(self, now: float) -> float:
        """Frames that arrived, per second, over the last two seconds."""
        return _rate(self.arrivals, now)


def _rate(moments: deque[float], now: float) -> float:
    recent = [moment for moment in moments if now - moment < 2.0]
    return (len(recent) - 1) / span if len(recent) > 1 and (span := recent[-1] - recent[0]) > 0 else 0.0
