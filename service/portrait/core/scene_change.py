"""Whether a frame continues the one before it, as far as the mask and the framing are concerned."""

from dataclasses import dataclass

import cv2

from portrait.image.frame import Frame, Plane

GAP = 1.0
"""Seconds without a frame after which the mask no longer says anything about the picture."""

CHANGED = 10.0
"""Levels of luma by which a person's pixels may differ, on average, from one frame to the next before their mask is no
prior any more. Measured on generated sequences: up to 1 when nothing moves but noise, 7 in the median when a person
sways by 2 % of the picture's width, 28 by 15 %, and at least 31 when they are gone.
"""


@dataclass(frozen=True, slots=True)
class LastFrame:
    """What is kept of a frame to compare the next one with."""

    size: tuple[int, int]
    """(width, height) of the source picture."""
    arrived: float
    guide: Plane
    """Its luma at half the mask's size."""
    person: Plane
    """255 where the person was, at the guide's size."""

    def is_unrelated(self, frame: Frame, guide: Plane, gap: float) -> bool:
        """Whether `frame` has another size, comes after a gap, or shows something else where the person was."""
        if frame.came != self.size or frame.arrived - self.arrived > gap:
            return True
        return cv2.mean(cv2.absdiff(guide, self.guide), self.person)[0] > CHANGED

    def is_cut(self, frame: Frame, guide: Plane, person: Plane) -> bool:
        """Whether `frame`, with this person in it, is another scene: of another size, or with another background.

        That is when a third of what neither person hides has changed: a person who moves fast uncovers less.
        """
        if frame.came != self.size:
            return True
        changed = cv2.threshold(cv2.absdiff(guide, self.guide), CHANGED, 255, cv2.THRESH_BINARY)[1]
        return cv2.mean(changed, cv2.bitwise_not(cv2.max(self.person, person)))[0] > 255 / 3
