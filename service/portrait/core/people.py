"""Which person: keeps one person of a mask, the same from frame to frame, and fades the others out.

A person is a connected part of the mask. Once two have been seen apart they stay two while they touch: each pixel of
the joined part is then taken for that of the two whose pixels of the frame before are nearer. Another person is chosen
only once they have fitted clearly better for a while. Two who touch from the first frame on are one. All of it is done
at half of the mask's size, in a third of the time.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait.core.guided_filter import halve
from portrait.image.frame import Mask, Plane

ALL, LARGEST, NEAREST = "all", "largest", "nearest-centre"
PEOPLE = (ALL, LARGEST, NEAREST)

PERSON = 127
"""Probabilities above this are a person's."""

SMALLEST = 0.002
"""The share of the picture from which on a part of the mask is a person; smaller ones go with the nearest person."""

BETTER = 1.25
"""How many times as large, or as near to the centre, another person must be to be chosen instead."""

PATIENCE = 0.5
"""Seconds for which they must be that."""

FADE = 0.3
"""Seconds in which the person chosen before fades out, and the new one in."""

LONGEST_STEP = 0.2
"""Seconds between two frames, at most, that count."""

SOFT = 3
"""Pixels, of half the mask's size, across which a person ends where another one begins."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A person in a frame."""

    area: Plane
    """(h, w) uint8, 255 where they are."""
    pixels: int
    offset: float
    """The distance of their middle from the picture's, in fractions of its sides."""

    @classmethod
    def of(cls, area: Plane) -> "Region":
        """The region of an area that is not empty."""
        moments, (height, width) = cv2.moments(area, binaryImage=True), area.shape
        x, y = (moments[name] / moments["m00"] for name in ("m10", "m01"))
        offset = float(np.hypot((x + 0.5) / width - 0.5, (y + 0.5) / height - 0.5))
        return cls(area, cv2.countNonZero(area), offset)

    def fits(self, which: str) -> float:
        """How well they fit: their size, or how near they are to the centre."""
        return float(self.pixels) if which == LARGEST else 1 / max(self.offset, 0.01)

    def shares(self, area: Plane) -> int:
        """The number of pixels that lie in `area` too."""
        return cv2.countNonZero(cv2.bitwise_and(self.area, area))


class PersonChooser:
    """Follows the chosen person of one stream. Used by one thread; `which` is "largest" or "nearest-centre"."""

    def __init__(self, which: str) -> None:
        self.which = which
        self._mine: Plane | None = None
        """The chosen person's area in the frame before."""
        self._others: Plane | None = None
        self._seconds, self._against = 0.0, 0.0
        self._weight: NDArray[np.float32] | None = None
        """The share of each pixel that was kept of the frame before."""
        self._before: NDArray[np.float32] | None = None
        """What was kept before another person was chosen, while that fades out."""
        self._fade = 0.0

    def choose(self, mask: Mask, seconds: float) -> Mask:
        """The mask of the chosen person in a frame whose media time is `seconds`."""
        step = min(max(seconds - self._seconds, 0.0), LONGEST_STEP)
        self._seconds = seconds
        small = halve(mask.values)
        if self._mine is not None and self._mine.shape != small.shape:
            self._mine = self._others = self._weight = self._before = None
        regions = self._regions(small)
        if not regions:
            return mask
        mine = self._pick(regions, step)
        others = [region.area for region in regions if region is not mine]
        self._mine, self._others = mine.area, np.asarray(np.bitwise_or.reduce(others), np.uint8) if others else None
        weight = _kept(self._mine, self._others)
        self._fade = max(self._fade - step / FADE, 0.0)
        if self._fade and self._before is not None:
            weight = np.asarray(cv2.addWeighted(weight, 1 - self._fade, self._before, self._fade, 0), np.float32)
        self._weight = weight
        if self._others is None and not self._fade:
            return mask
        kept = cv2.resize(weight, (mask.width, mask.height), interpolation=cv2.INTER_LINEAR)
        values = np.asarray(cv2.multiply(mask.values, kept, dtype=cv2.CV_8U), np.uint8)
        return Mask(values, mask.fine)

    def _regions(self, values: Plane) -> list[Region]:
        """The persons of a mask's values; those who have come to touch the chosen one are still others."""
        person = cv2.threshold(values, PERSON, 255, cv2.THRESH_BINARY)[1]
        count, labels, stats, _ = cv2.connectedComponentsWithStats(person)
        least, regions = SMALLEST * values.size, []
        for label in range(1, count):
            if stats[label, cv2.CC_STAT_AREA] >= least:
                part = np.asarray(np.where(labels == label, 255, 0), np.uint8)
                regions += [Region.of(each) for each in self._split(part, least)]
        return regions

    def _split(self, part: Plane, least: float) -> list[Plane]:
        """A connected part, or the two that it is made of: the chosen person's and the others'."""
        if self._mine is None or self._others is None:
            return [part]
        for known in (self._mine, self._others):
            if cv2.countNonZero(cv2.bitwise_and(part, known)) < least:
                return [part]
        nearer = _distance(self._mine) <= _distance(self._others)
        mine = np.asarray(np.where(nearer, part, 0), np.uint8)
        parts = [mine, np.asarray(cv2.subtract(part, mine), np.uint8)]
        return [each for each in parts if cv2.countNonZero(each) >= least]

    def _pick(self, regions: list[Region], step: float) -> Region:
        best = max(regions, key=lambda region: region.fits(self.which))
        if self._mine is None:
            return best
        known = self._mine
        same = max(regions, key=lambda region: region.shares(known))
        if not same.shares(known):  # they have left, or moved too fast
            self._against = 0.0
            self._begin_fade()
            return best
        better = best is not same and best.fits(self.which) > BETTER * same.fits(self.which)
        self._against = self._against + step if better else 0.0
        if self._against < PATIENCE:
            return same
        self._against = 0.0
        self._begin_fade()
        return best

    def _begin_fade(self) -> None:
        self._before, self._fade = self._weight, 1.0


def _distance(area: Plane) -> NDArray[np.float32]:
    """The distance of each pixel from `area`."""
    return np.asarray(cv2.distanceTransform(cv2.bitwise_not(area), cv2.DIST_L2, 3), np.float32)


def _kept(mine: Plane, others: Plane | None) -> NDArray[np.float32]:
    """The share of each pixel, 0 to 1, that goes with the area `mine` and not with `others`."""
    if others is None:
        return np.ones(mine.shape, np.float32)
    nearer = np.asarray(_distance(mine) <= _distance(others), np.float32)
    return np.asarray(cv2.blur(nearer, (SOFT, SOFT)), np.float32)
