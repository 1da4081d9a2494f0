"""MaskReuse: whether a frame takes the mask of an earlier one, or needs the network.

With `on_change` the network runs only when the contour may have moved. What changed since the frame that was segmented
last is measured around its contour and outside of the person; a face that talks inside its outline costs nothing. A
change of luma is taken for a shift of edges: divided by the contrast at its place it is the shift in pixels, and summed
along the contour the area by which the mask is wrong. Changes as small as the sensor's noise count as none; the noise
is measured in each stream, where least has changed.
"""

from dataclasses import dataclass
from math import inf
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait.admission.quality import Quality
from portrait.core.guided_filter import halve
from portrait.image.frame import Mask, Plane

Carried: TypeAlias = Literal["", "unchanged", "still", "alternate"]
"""Why a result has the mask of an earlier frame; empty if it has its own."""

LONGEST_UNCHANGED = 10
"""Frames from one that is segmented to the next, at most, however little changes: a third of a second."""

WRONG_SHARE = 0.04
"""The network runs when the mask is wrong by more than this share of the person."""

NOT_WRONG = 0.1
"""The part of WRONG_SHARE and SHIFT up to which the mask is used as it is: moved to every frame's edges, it would show
their noise."""

SHIFT = 0.008
"""It also runs when a part of the contour has moved by more than this share of the picture's shorter side."""

BAND = 1 / 24
"""How far from the contour the person's inside begins, as a share of the shorter side, and the size of a contour's
part: four and nine pixels of 96."""

LEAST_CONTRAST = 24.0
"""Levels of luma: with less contrast nothing is an edge, and a change is something that comes or goes."""

SCALES: NDArray[np.float32] = np.float32(1) / np.maximum(np.arange(256), LEAST_CONTRAST).astype(np.float32)
"""What a change of luma is multiplied by to give the shift of an edge in pixels, by the contrast there."""

NEAR = np.ones((5, 5), np.uint8)
"""Within which contrast is measured."""

SIGMAS = 3.0
"""Multiples of the noise below which a pixel's change counts as none."""

LEAST_NOISE, MOST_NOISE = 0.7, 6.0
"""Levels of luma: what a clean picture has by rounding, and the noise up to which a change can be told from it."""

NEARBY = 0.2
"""What is within this share of the person's size around them is looked at together with them."""

APART = 5
"""Frames from one change far from the person to the next that counts: somewhere a screen may flicker all the time."""

UNSETTLED = 0.05
"""A network whose mask has changed by more than this share of the person runs again in the next frame."""

NOISE_CELLS, CALMEST = 12, 36
"""The noise is measured in cells, so many in a row and a column: in the calmest of them, of which there are so many."""

CELLS = (16, 9)
"""Columns and rows: pictures are compared by the mean luma of these cells, which averages a sensor's noise out."""

STILL_DIFFERENCE = 2
"""Levels of 255 by which a cell may differ, at most, from the frame that the mask was made of."""

LONGEST_STILL = 15
"""Consecutive frames that reuse one mask at a lower quality: half a second, in case something moved that the means do
not show."""


@dataclass(frozen=True, slots=True)
class SegmentedFrame:
    """The last frame that the network segmented."""

    prior: Mask
    """The network's output."""
    mask: Mask
    """The output with its contour moved to the frame's edges."""
    guide: Plane
    """The frame's luma at half the mask's size."""
    person: Plane
    """255 where the output is at least half, at the guide's size."""


@dataclass(frozen=True, slots=True)
class Reuse:
    """A mask that a frame takes from an earlier one."""

    reason: Literal["unchanged", "still", "alternate"]
    prior: Mask
    """The network's output for the earlier frame."""
    mask: Mask | None
    """The mask as it is; None if the contour of `prior` has to be moved to this frame's edges."""
    person: Plane
    """That of the earlier frame."""


class Contour:
    """Where a change of the picture may change the mask of a frame, and by how much."""

    def __init__(self, guide: Plane, person: Plane) -> None:
        """`guide` and `person` are those of a SegmentedFrame."""
        side = min(guide.shape)
        self._part = 2 * round(side * BAND) + 1
        self._most: float = SHIFT * side * self._part
        self._area = max(1, cv2.countNonZero(person))
        inside = cv2.erode(person, cv2.getStructuringElement(cv2.MORPH_RECT, (self._part, self._part)))
        self._guide, self._watched = guide, cv2.bitwise_not(inside)
        x, y, width, height = cv2.boundingRect(person)
        across, down = round(NEARBY * width), round(NEARBY * height)
        self._near = x - across, y - down, width + 2 * across, height + 2 * down
        contrast = cv2.morphologyEx(guide, cv2.MORPH_GRADIENT, NEAR)
        self._scale = cv2.LUT(contrast, SCALES)

    def noise(self, guide: Plane) -> float:
        """Levels of luma by which the calmest parts of another frame differ from this one, root mean square."""
        change = cv2.absdiff(guide, self._guide)
        squares = cv2.multiply(change, change, dtype=cv2.CV_32F)
        cells = cv2.resize(squares, (NOISE_CELLS, NOISE_CELLS), interpolation=cv2.INTER_AREA).reshape(-1)
        return float(np.sqrt(np.partition(cells, CALMEST)[CALMEST]))

    def wrong(self, guide: Plane, noise: float) -> float:
        """How wrong the mask may be in another frame of the stream: 1 is as wrong as it may become, 0 is not at all."""
        shift = self._shift(guide, noise)
        share = cv2.sumElems(shift)[0] / (WRONG_SHARE * self._area)
        if not 0 < share < 1:
            return float(share)
        return max(float(share), self._largest(shift))

    def is_elsewhere(self, guide: Plane, noise: float) -> bool:
        """Whether something has changed far from the person."""
        shift = self._shift(guide, noise)
        x, y, width, height = self._near
        shift[max(0, y) : y + height, max(0, x) : x + width] = 0
        return self._largest(shift) > 1

    def _shift(self, guide: Plane, noise: float) -> NDArray[np.float32]:
        """(H,W) float32: by how many pixels, at most 1, edges have moved at each place that is watched."""
        change = cv2.bitwise_and(cv2.absdiff(guide, self._guide), self._watched)
        signal = cv2.addWeighted(change, 1.0, change, 0.0, -SIGMAS * noise)  # at least 0, since it is uint8
        scaled = cv2.multiply(signal, self._scale, dtype=cv2.CV_32F)
        return np.asarray(cv2.threshold(scaled, 1.0, 1.0, cv2.THRESH_TRUNC)[1], np.float32)

    def _largest(self, shift: NDArray[np.float32]) -> float:
        """The largest shift of a part of the contour, as a multiple of SHIFT."""
        parts = cv2.boxFilter(shift, -1, (self._part, self._part), normalize=False, borderType=cv2.BORDER_CONSTANT)
        largest: float = cv2.minMaxLoc(parts)[1]
        return largest / self._most


class MaskReuse:
    """The network's last mask, and how often it has been reused since. Used by one thread.

    With `on_change` a mask is reused while the contour has not moved, at any quality; without it, only as a quality
    below FULL allows.
    """

    def __init__(self, on_change: bool = False) -> None:
        self.last: SegmentedFrame | None = None
        """None before the first frame, and after `forget`."""
        self._on_change = on_change
        self._contour: Contour | None = None
        """Of the last frame; None while its mask may be better in the next frame, since the network has not settled."""
        self.is_elsewhere = False
        """Whether the frame that needs a mask of its own shows a change far from the person, every APART frames."""
        self._apart = APART
        self._noise = MOST_NOISE
        self._served = 0

    def find(self, guide: Plane, quality: Quality) -> Reuse | None:
        """The mask that the frame of `guide` takes from an earlier one; None if it needs its own. Counts the reuse."""
        last = self.last
        if last is None:
            return None
        wrong = self._how_wrong(guide)
        self._apart += 1
        self.is_elsewhere = 1 < wrong < inf and self._apart >= APART and self._has_changed_elsewhere(guide)
        if self.is_elsewhere:
            self._apart = 0
        if wrong <= NOT_WRONG:
            found: Reuse | None = Reuse("unchanged", last.prior, last.mask, last.person)
        elif wrong <= 1:
            found = Reuse("unchanged", last.prior, None, last.person)
        elif quality >= Quality.STILL and self._served < LONGEST_STILL and _is_still(last.guide, guide):
            found = Reuse("still", last.prior, last.mask, last.person)
        elif quality >= Quality.ALTERNATE and self._served == 0:
            found = Reuse("alternate", last.prior, None, last.person)
        else:
            found = None
        self._served += found is not None
        return found

    def keep(self, segmented: SegmentedFrame) -> None:
        """Keep what the network made of a frame."""
        before, self.last, self._served = self.last, segmented, 0
        if self._on_change:
            settled = before is not None and _differ(before.person, segmented.person) <= UNSETTLED
            self._contour = Contour(segmented.guide, segmented.person) if settled else None

    def forget(self) -> None:
        """Treat the next frame as the first."""
        self.last = self._contour = None
        self.is_elsewhere = False

    def _has_changed_elsewhere(self, guide: Plane) -> bool:
        return self._contour is not None and self._contour.is_elsewhere(guide, self._noise)

    def _how_wrong(self, guide: Plane) -> float:
        """How wrong the last mask may be in this frame; above 1 the network has to run."""
        if self._contour is None or self._served >= LONGEST_UNCHANGED - 1:
            return inf
        # It falls at once and rises slowly: what moves everywhere for a moment is no noise.
        measured = self._contour.noise(guide)
        self._noise = min(max(measured, LEAST_NOISE), 1.1 * self._noise, MOST_NOISE)
        return self._contour.wrong(guide, self._noise)


def make_person(prior: Mask) -> Plane:
    """255 where the mask is at least half, else 0, at half its size."""
    return np.asarray(cv2.threshold(halve(prior.values), 127, 255, cv2.THRESH_BINARY)[1], np.uint8)


def _differ(before: Plane, now: Plane) -> float:
    """The share of a person, of either mask, by which two differ."""
    either = max(1, cv2.countNonZero(cv2.bitwise_or(before, now)))
    return cv2.countNonZero(cv2.bitwise_xor(before, now)) / either


def _is_still(before: Plane, now: Plane) -> bool:
    # Computed when needed, the earlier frame's too: at full quality no frame is compared.
    return cv2.norm(_cells(before), _cells(now), cv2.NORM_INF) <= STILL_DIFFERENCE


def _cells(guide: Plane) -> Plane:
    """(9,16) uint8: the mean luma of each part of the picture."""
    return np.asarray(cv2.resize(guide, CELLS, interpolation=cv2.INTER_AREA), np.uint8)
