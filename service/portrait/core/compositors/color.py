"""Mode color: the person over one colour."""

import cv2
import numpy as np

from portrait.core.compositors.blend import blend_into
from portrait.core.compositors.options import Options, parse_color
from portrait.image.frame import Frame
from portrait.image.mask import Mask


class ColorCompositor:
    """Takes `options.color`."""

    def __init__(self, options: Options) -> None:
        red, green, blue = parse_color(options.color)
        pixels = np.full((2, 2, 3), (blue, green, red), np.uint8)
        packed = cv2.cvtColor(pixels, cv2.COLOR_BGR2YUV_I420).reshape(-1)
        self._steep, self._own_colors = options.steep, options.decontaminate
        self._color = int(packed[0]), int(packed[4]), int(packed[5])

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """The person over the colour."""
        y, u, v = map(np.full_like, (frame.y, frame.u, frame.v), self._color)
        return blend_into((y, u, v), frame, mask, self._steep, self._own_colors)
