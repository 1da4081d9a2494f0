"""The quality levels that live streams step down through when the box is short of CPU."""

from enum import Enum, IntEnum


class Quality(IntEnum):
    """What a live stream gets. Each level includes the savings of those before it.

    What a viewer sees at each: docs/reference/behaviour.md.
    """

    FULL = 0
    """Every frame gets a mask of its own."""
    STILL = 1
    """While the picture stands still, its mask is used again."""
    ALTERNATE = 2
    """Every second frame takes the previous frame's mask, its contour aligned to the edges of this frame."""
    SMALLER = 3
    """A cheaper model with masks of the same size, where there is one."""
    SLOWER = 4
    """Fewer frames: SLOW_RATE per second."""


class Delivery(Enum):
    """Which frames of a session are answered."""

    LIVE = "live"
    """The newest frame replaces older ones, and quality may go down."""
    EXACT = "exact"
    """Every frame is answered with a mask of its own; under pressure the sender is slowed down instead."""
    STILL = "still"
    """One picture."""


SLOW_RATE = 14.5
"""Frames per second at Quality.SLOWER. A little under half of 30, so that the newest frame hardly waits."""

EXACT_RATE = 30.0
"""Most frames per second of an EXACT stream while live streams get less than full quality."""
