"""When the mask of an earlier frame may serve again."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np

from portrait.admission.quality import Quality
from portrait.image.frame import Plane
from portrait.image.mask import Mask

Carried: TypeAlias = Literal["", "still", "alternate"]
"""Why a result has the mask of an earlier frame; empty: it has its own."""

CELLS = (16, 9)
"""Across and down: the picture is compared by the mean luma of so many parts, which averages a sensor's noise out."""

STILL_DIFFERENCE = 2
"""Levels of 255 by which no part may differ from the frame the mask was made of."""

LONGEST_STILL = 15
"""Frames in a row that take one mask: half a second, in case something moved that no mean shows."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """The last frame that the network has seen."""

    prior: Mask
    """What it said."""
    mask: Mask
    """That, with its contour at the edges of that frame."""
    guide: Plane
    """Its small luma."""


class MaskReuse:
    """The last mask that the network made, and how often it has served since. Used by one thread."""

    def __init__(self) -> None:
        self.last: Earlier | None = None
        """None before the first, and after `forget`."""
        self._served = 0

    def find(self, guide: Plane, quality: Quality) -> tuple[Carried, Earlier | None]:
        """What the frame of `guide`, its small luma, takes instead of a mask of its own, and why; counted as taken."""
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
        """The network has said `prior` of the frame of `guide`, and `mask` has become of it."""
        self.last, self._served = Earlier(prior, mask, guide), 0

    def forget(self) -> None:
        """The next frame is a first frame."""
        self.last = None


def _is_still(before: Plane, now: Plane) -> bool:
    # The cells are made when they are asked for, the earlier ones too: at full quality nobody asks.
    return cv2.norm(_cells(before), _cells(now), cv2.NORM_INF) <= STILL_DIFFERENCE


def _cells(guide: Plane) -> Plane:
    """(9,16) uint8: the mean luma of each part of the picture."""
    return np.asarray(cv2.resize(guide, CELLS, interpolation=cv2.INTER_AREA), np.uint8)
