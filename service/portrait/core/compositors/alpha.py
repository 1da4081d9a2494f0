"""Mode alpha: the share of the person in every pixel, as the composing modes blend with it."""

from portrait.core.compositors.blend import grey_frame, matte
from portrait.core.compositors.options import Options
from portrait.image.frame import Frame, Mask


class AlphaCompositor:
    """A matte to blend with: the probability with steeper edges, at the frame's size."""

    def __init__(self, options: Options) -> None:
        self._steep = options.steep

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """The share of the person as luma, without colour."""
        return grey_frame(frame, matte(frame, mask, self._steep, frame.width, frame.height))
