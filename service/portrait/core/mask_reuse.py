"""Reusing the mask of an earlier frame when the picture stands still or quality is reduced."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np

from portrait.admission.quality import Quality
from portrait.image.frame import Mask, Plane

Carried: TypeAlias = Literal["", "still", "alternate"]
"""Why a result has the mask of an earlier frame; empty if it has its own."""

CELLS = (16, 9)
"""Columns and rows: pictures are compared by the mean luma of these cells, which averages a sensor's noise out."""

STILL_DIFFERENCE = 2
"""Levels of 255 by which a cell may differ, at most, from the frame that the mask was made of."""

LONGEST_STILL = 15
"""Consecutive frames that reuse one mask: half a second, in case something moved that the means do not show."""


@dataclass(frozen=True, slots=True)
class SegmentedFrame:
    """The last frame that the network segmented."""

    prior: Mask
    """The network's output."""
    mask: Mask
    """The output with its contour moved to the frame's edges."""
    guide: Plane
    """The frame's luma at half the mask's size."""


class MaskReuse:
    """The network's last mask, and how often it has been reused since. Used by one thread."""

    def __init__(self) -> None:
        self.last: SegmentedFrame | None = None
        """None before the first frame, and after `forget`."""
        self._served = 0

    def find(self, guide: Plane, quality: Quality) -> tuple[Carried, SegmentedFrame | None]:
        """Why the frame of `guide` reuses a mask, and that mask's frame; None if it needs its own. Counts the reuse."""
        carried: Carried = ""
        if self.last is None or quality is Quality.FULL:
            return carried, None
        if self._served < LONGEST_STILL and _is_still(self.last.guide, guide):
            carried = "still"
        elif quality >= Quality.ALTERNATE and self._served == 0:
            carried = "alternate"
        self._served += bool(carried)
        return carried, self.last if carried else None

    def keep(self, guide: Plane, prior: Mask, mask: Mask) -> None:
        """Keep the network's output for the frame of `guide`, and the mask made of it."""
        self.last, self._served = SegmentedFrame(prior, mask, guide), 0

    def forget(self) -> None:
        """Treat the next frame as the first."""
        self.last = None


def _is_still(before: Plane, now: Plane) -> bool:
    # Computed when needed, the earlier frame's too: at full quality no frame is compared.
    return cv2.norm(_cells(before), _cells(now), cv2.NORM_INF) <= STILL_DIFFERENCE


def _cells(guide: Plane) -> Plane:
    """(9,16) uint8: the mean luma of each part of the picture."""
    return np.asarray(cv2.resize(guide, CELLS, interpolation=cv2.INTER_AREA), np.uint8)
