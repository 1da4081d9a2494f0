"""Film: a background that moves."""

from collections.abc import Sequence
from dataclasses import dataclass

from portrait.frame import Frame


@dataclass(frozen=True, eq=False)  # without slots, which allow no weak references before Python 3.11
class Film:
    """A short clip, decoded; shown over and over. Shared between sessions, never written to."""

    frames: Sequence[Frame]
    """One or more, all of one size."""
    rate: float
    """Frames per second."""

    def at(self, seconds: float) -> Frame:
        """The picture at a time, counted from any origin."""
        return self.frames[int(seconds * self.rate) % len(self.frames)]
