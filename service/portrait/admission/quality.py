"""The steps in which quality goes down when a box is short of time."""

from enum import Enum, IntEnum


class Quality(IntEnum):
    """What a live stream gets. Each step includes those before it.

    What a viewer sees of each: docs/reference/behaviour.md.
    """

    FULL = 0
    """Every frame its own mask."""
    STILL = 1
    """While the picture stands still, the mask made of it is used again."""
    ALTERNATE = 2
    """Every second frame takes the mask of the one before it, its contour brought to the edges of this one."""
    SMALLER = 3
    """A cheaper network of the same size, where there is one."""
    SLOWER = 4
    """Fewer frames: SLOW_RATE per second."""


class Delivery(Enum):
    """What a session is for."""

    LIVE = "live"
    """The newest frame wins, and quality may go down."""
    EXACT = "exact"
    """Every frame is answered with a mask of its own; the sender is slowed down instead."""
    STILL = "still"
    """One picture."""


SLOW_RATE = 14.5
"""Frames per second. A little less than half of 30: then it is the newest frame that waits, and hardly."""

EXACT_RATE = 30.0
"""Frames per second of a stream that loses none, while others get less than full quality: its sender is slowed down."""
