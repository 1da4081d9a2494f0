"""On which terms a session works, beside what its client asks for."""

from collections.abc import Callable
from dataclasses import dataclass

from portrait.admission.quality import EXACT_RATE, SLOW_RATE, Delivery, Quality
from portrait.segmenters import Model

HANG_SECONDS = 20.0
"""Far more than the largest still takes on the slowest box."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What it is for, and what it gets while the box is short of time."""

    delivery: Delivery = Delivery.LIVE
    in_force: Callable[[], Quality] = lambda: Quality.FULL
    """The quality of live streams now."""
    smaller: Model | None = None
    """A cheaper model with masks of the same size."""
    hang_seconds: float = HANG_SECONDS
    """A frame that takes so long hangs."""

    @property
    def quality(self) -> Quality:
        """What this session gets now."""
        return self.in_force() if self.delivery is Delivery.LIVE else Quality.FULL

    @property
    def rate(self) -> float:
        """Frames per second that may be taken; 0: all."""
        match self.delivery:
            case Delivery.LIVE:
                return SLOW_RATE if self.in_force() >= Quality.SLOWER else 0.0
            case Delivery.EXACT:
                return EXACT_RATE if self.in_force() > Quality.FULL else 0.0
        return 0.0
