"""When the mask of an earlier frame may serve again."""

from typing import Literal, TypeAlias

import cv2
import numpy as np

from portrait.frame import Frame, Plane
from portrait.mask import Mask
from portrait.quality import Quality

Carried: TypeAlias = Literal["", "still", "alternate"]
"""Why a result has the mask of an earlier frame; empty: it has its own."""

CELLS = (16, 9)
"""Across and down: the picture is compared by the mean luma of so many parts."""

SAMPLES = 8
"""Pixels across and down each part that make its mean: enough to average a sensor's noise out."""

STILL_DIFFERENCE = 2
"""Levels of 255 by which no part may differ from the frame the mask was made of."""

LONGEST_STILL = 15
"""Frames in a row that take one mask: half a second, in case something moved that no mean shows."""


class Reuse:
    """The last mask that the network made, and what the picture looked like then. Used by one thread."""

    def __init__(self) -> None:
        self.prior: Mask | None = None
        """What the network said; None before its first frame, and after `forget`."""
        self.mask: Mask | None = None
        """That, with its contour at the edges of that frame."""
        self._cells: Plane | None = None
        self._served = 0

    def why(self, frame: Frame, quality: Quality) -> Carried:
        """Whether `frame` takes the last mask, and why; counted as taken."""
        carried: Carried = ""
        if self.mask is None or quality is Quality.FULL:
            return carried
        if self._stands_still(frame):
            carried = "still"
        elif quality >= Quality.ALTERNATE and self._served == 0:
            carried = "alternate"
        self._served += bool(carried)
        return carried

    def keep(self, frame: Frame, prior: Mask, mask: Mask, quality: Quality) -> None:
        """The network has made `prior` of `frame`, and `mask` has become of it."""
        self.prior, self.mask, self._served = prior, mask, 0
        self._cells = None if quality is Quality.FULL else _cells(frame)

    def forget(self) -> None:
        """The next frame is a first frame."""
        self.prior = self.mask = self._cells = None

    def _stands_still(self, frame: Frame) -> bool:
        if self._cells is None or self._served >= LONGEST_STILL:
            return False
        return cv2.norm(_cells(frame), self._cells, cv2.NORM_INF) <= STILL_DIFFERENCE


def _cells(frame: Frame) -> Plane:
    """(9,16) uint8: the mean luma of each part of the picture, of a sample of its pixels."""
    across, down = CELLS
    step_x, step_y = max(1, frame.width // (across * SAMPLES)), max(1, frame.height // (down * SAMPLES))
    sample = np.ascontiguousarray(frame.y[::step_y, ::step_x])
    return np.asarray(cv2.resize(sample, CELLS, interpolation=cv2.INTER_AREA), np.uint8)
