"""Mode color: the person over one colour."""

import numpy as np

from portrait.core.compositors.blend import blend_into
from portrait.core.compositors.options import Options, parse_color
from portrait.image.convert import yuv_from_rgb
from portrait.image.frame import CAMERA, Frame, Mask


class ColorCompositor:
    """Fills the background with `options.color`."""

    def __init__(self, options: Options) -> None:
        self._color = parse_color(options.color)
        self._colors, self._levels = CAMERA, yuv_from_rgb(*self._color, CAMERA)
        self._steep, self._own_colors = options.steep, options.decontaminate

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """The person over the colour."""
        if frame.colors != self._colors:
            self._colors, self._levels = frame.colors, yuv_from_rgb(*self._color, frame.colors)
        y, u, v = map(np.full_like, (frame.y, frame.u, frame.v), self._levels)
        return blend_into((y, u, v), frame, mask, self._steep, self._own_colors)
