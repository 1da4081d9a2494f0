"""Looking at a stream in two ways by turns, so that a mask is the mean of two looks for the time of one.

The errors of a picture and of its mirror image differ most along the contour. What a look at one frame found is good
for the next frame wherever that shows the same; elsewhere the newest look alone counts, so that no mask lags.
"""

import cv2
import numpy as np

from portrait.core.guided_filter import halve
from portrait.image.frame import Plane

CELL = 4
"""Pixels across and down of the network's input. Frames are compared by the mean luma of such cells."""

CHANGED = 8.0
"""Levels by which a cell and those around it may differ from the frame before, on average: more than noise does."""

MOST_CHANGED = 0.3
"""Share of the picture that may have changed from one frame to the next for looks to go by turns. In a picture that
moves as a whole there is nothing to average, and looks that disagree would flicker."""


class TwoWays:
    """What was seen of a stream as it is and of it mirrored. Used by one segmenter, for masks of one size."""

    def __init__(self) -> None:
        self._way = 0
        """How the next frame goes in: 0 as it is, 1 mirrored."""
        self._seen: list[Plane] = []
        """What each way saw last, brought up to date where the picture has changed since; empty before a frame."""
        self._cells: Plane | None = None
        """Of the last frame."""

    @property
    def is_mirrored(self) -> bool:
        """Whether the next frame goes in mirrored."""
        return self._way == 1

    @property
    def prior(self) -> Plane:
        """(height,width) uint8: what the next way saw last, turned that way."""
        return _turned(self._seen[self._way], self._way)

    def take(self, luma: Plane, seen: Plane) -> Plane:
        """The mask of a frame, (height,width) uint8, as the picture is: what both ways see.

        `luma` is that of the network's input and `seen` its mask, both as they went in.
        """
        way, other = self._way, 1 - self._way
        seen, cells = _turned(seen, way), _turned(halve(halve(luma)), way)
        if self._cells is None:
            self._seen, self._way = [seen, seen], other
        else:
            difference = cv2.blur(cv2.absdiff(cells, self._cells), (3, 3))
            changed = cv2.threshold(difference, CHANGED, 255, cv2.THRESH_BINARY)[1]
            if cv2.countNonZero(changed) <= MOST_CHANGED * changed.size:
                self._way = other
            self._seen[way], self._seen[other] = seen, _replaced(self._seen[other], seen, np.asarray(changed, np.uint8))
        self._cells = cells
        one, another = self._seen
        return (one & another) + ((one ^ another) >> 1)  # the mean, in less time than OpenCV's

    def forget(self) -> None:
        """Take the next frame for a first one, which goes in as it is."""
        self._way, self._seen, self._cells = 0, [], None


def _replaced(old: Plane, new: Plane, cells: Plane) -> Plane:
    """`old` with what `new` says in those cells that are not 0."""
    where = cells.repeat(CELL, 0).repeat(CELL, 1)
    if where.shape != old.shape:  # sides that are no multiples of CELL
        where = np.asarray(cv2.resize(cells, old.shape[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
    return np.asarray(cv2.copyTo(new, where, old.copy()), np.uint8)


def _turned(plane: Plane, way: int) -> Plane:
    """A plane turned from the picture's own way to another, or back."""
    return np.asarray(cv2.flip(plane, 1), np.uint8) if way else plane
