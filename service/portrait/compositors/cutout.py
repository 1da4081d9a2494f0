"""Mode cutout: the person alone, with an alpha plane."""

import numpy as np

from portrait.compositors.base import Options, alpha
from portrait.frame import GREY, Frame
from portrait.mask import Mask

BLACK = 16


class CutoutCompositor:
    """Opaque where the person is, transparent elsewhere."""

    def __init__(self, options: Options) -> None:
        """Takes no option."""

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """The frame with its alpha; fully transparent pixels are black, since an alpha plane alone hides nothing."""
        share = alpha(mask, frame.width, frame.height)
        y = np.where(share, frame.y, np.uint8(BLACK))
        # A chroma sample belongs to four pixels and is kept if any of them shows.
        height, width = frame.u.shape
        padded = np.pad(share, ((0, 2 * height - frame.height), (0, 2 * width - frame.width)))
        shown = padded.reshape(height, 2, width, 2).max(axis=(1, 3))
        u, v = (np.where(shown, plane, np.uint8(GREY)) for plane in (frame.u, frame.v))
        return frame.with_planes(y, u, v, share)
