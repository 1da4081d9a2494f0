"""Mode cutout: the person alone, with an alpha plane."""

import cv2
import numpy as np

from portrait.core.compositors.blend import alpha, blend_into
from portrait.core.compositors.decontaminate import own_colors
from portrait.core.compositors.options import Options
from portrait.image.frame import GREY, Frame, Plane
from portrait.image.mask import Mask


class CutoutCompositor:
    """Opaque where the person is, transparent elsewhere."""

    def __init__(self, options: Options) -> None:
        self._steep, self._own_colors = options.steep, options.decontaminate

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """The frame with its alpha.

        Fully transparent pixels are black, since an alpha plane alone hides nothing.
        """
        share = alpha(mask, frame.width, frame.height, self._steep)
        # A chroma sample belongs to four pixels and is kept if any of them shows: the largest of a pixel and of those
        # right, below, and right below.
        any_of_four = np.asarray(cv2.dilate(share, np.ones((2, 2), np.uint8), anchor=(0, 0)), np.uint8)
        shown = np.ascontiguousarray(any_of_four[::2, ::2])
        person = frame
        if self._own_colors:
            person = blend_into(own_colors(frame, mask, self._steep), frame, mask, self._steep)
        y, u, v = (
            _where(share, person.y, frame.colors.black),
            _where(shown, person.u, GREY),
            _where(shown, person.v, GREY),
        )
        return frame.with_planes(y, u, v, share)


def _where(share: Plane, plane: Plane, otherwise: int) -> Plane:
    return np.asarray(cv2.copyTo(plane, share, np.full_like(plane, otherwise)), np.uint8)
