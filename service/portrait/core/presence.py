"""Whether a person is in the picture of a stream, by its masks, without flicker.

It is made for lights, signs and dashboards. It does not count people, and nobody's safety may depend on it: the network
overlooks people and sees some where there are none (docs/reference/model-card.md).
"""

from dataclasses import dataclass

import cv2
import numpy as np

from portrait.core.guided_filter import halve
from portrait.image.frame import Mask

PERSON = 127
"""Probabilities above this are a person's."""

STAYS = 0.5
"""The share of the area that comes from which on a person who is present stays so."""

LONGEST_STEP = 1.0
"""Seconds between two frames, at most, that count: what happens in a gap is not known."""

SPECK = np.ones((3, 3), np.uint8)
"""Smaller spots of a mask, at half its size, are no person."""


@dataclass(frozen=True, slots=True)
class PresenceRule:
    """When a person counts as present."""

    area: float = 0.01
    """The person's share of the picture, above 0, up to 1."""
    enter_seconds: float = 0.5
    """For how long a person must be seen without a break before they are present."""
    leave_seconds: float = 3.0
    """For how long nobody must be seen before nobody is."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, in fractions of the picture's width and height."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether a person is in the picture, and where."""

    present: bool
    """By the rule: it changes no more often than that allows."""
    share: float
    """The share of this frame's pixels that are a person's, 0 to 1."""
    box: Box | None
    """Around everything that is a person's in this frame; None where nothing is."""


class PresenceTracker:
    """Follows the masks of one stream. Used by one thread."""

    def __init__(self, rule: PresenceRule) -> None:
        self._rule = rule
        self._present = False
        self._seconds: float | None = None
        self._against = 0.0
        """For how many seconds masks have said otherwise."""

    def follow(self, mask: Mask, seconds: float) -> Presence:
        """The presence in the frame of `mask`, whose media time is `seconds`."""
        step = 0.0 if self._seconds is None else min(max(seconds - self._seconds, 0.0), LONGEST_STEP)
        self._seconds = seconds
        share, box = measure(mask)
        seen = share >= self._rule.area * (STAYS if self._present else 1.0)
        self._against = self._against + step if seen != self._present else 0.0
        if self._against >= (self._rule.leave_seconds if self._present else self._rule.enter_seconds):
            self._present, self._against = seen, 0.0
        return Presence(self._present, share, box)


def measure(mask: Mask) -> tuple[float, Box | None]:
    """The person's share of the picture, and the box around them; specks do not count.

    Measured at half the mask's size, the resolution of the embedded networks' contours, in half the time.
    """
    person = cv2.threshold(halve(mask.values), PERSON, 255, cv2.THRESH_BINARY)[1]
    solid = cv2.morphologyEx(person, cv2.MORPH_OPEN, SPECK)
    left, top, width, height = cv2.boundingRect(solid)
    if not width:
        return 0.0, None
    rows, columns = solid.shape
    box = Box(left / columns, top / rows, width / columns, height / rows)
    return cv2.countNonZero(solid) / (rows * columns), box
