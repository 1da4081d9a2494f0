"""What the modes that hide the person hide: more than one frame's mask shows.

Those modes fail closed the other way round: a mask that shows too little would show the person. So what was the person
a moment ago stays hidden, and after a failure the whole picture stays hidden until a mask shows a person again, or
masks without one have come for a while: the first masks after a failure often miss the person.
"""

import cv2
import numpy as np

from portrait.image.frame import Mask, Plane

HOLD = 0.5
"""Seconds in which a pixel that was certainly the person is forgotten, in even steps. Hidden is what is above the lower
end of the soft edge, so that by default it stays hidden for three quarters of that."""

DOUBT = 0.5
"""Seconds for which masks without a person are not believed after a failure."""

LONGEST_STEP = 0.1
"""Seconds between two frames, at most, that count for both: a stream that stalls has shown nothing meanwhile."""

PERSON = 127
"""Probabilities above this are a person's."""


class HiddenArea:
    """Follows the masks of one stream. Used by one thread."""

    def __init__(self) -> None:
        self._held: Plane | None = None
        self._seconds = 0.0
        self._doubt = 0.0
        """Seconds for which an empty mask is not believed."""

    @property
    def everything(self) -> bool:
        """Whether the whole picture was hidden the last time, since nothing is known of it."""
        return self._doubt > 0

    def follow(self, mask: Mask, seconds: float, failed: bool) -> Mask:
        """What to hide of the frame of `mask`, whose media time is `seconds`: everything where segmentation `failed`.

        The result's values are nowhere less than those of `mask`.
        """
        step = min(max(seconds - self._seconds, 0.0), LONGEST_STEP)
        self._seconds = seconds
        held = self._held
        if held is None or held.shape != mask.values.shape:
            held = np.zeros_like(mask.values)
        faded = cv2.subtract(held, np.full_like(held, round(255 * step / HOLD)))
        self._held = np.asarray(cv2.max(faded, mask.values), np.uint8)
        self._doubt = DOUBT if failed else max(self._doubt - step, 0.0)
        if not failed and cv2.minMaxLoc(mask.values)[1] > PERSON:
            self._doubt = 0.0
        return Mask(np.full_like(held, 255) if self.everything else self._held)
