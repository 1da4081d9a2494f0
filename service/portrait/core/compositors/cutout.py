"""Mode cutout: the person alone, with an alpha plane."""

from dataclasses import replace

from portrait.core.compositors.blend import blend_into, matte
from portrait.core.compositors.decontaminate import own_colors
from portrait.core.compositors.options import Options
from portrait.image.convert import hidden
from portrait.image.frame import Frame, Mask


class CutoutCompositor:
    """Opaque where the person is, transparent elsewhere."""

    def __init__(self, options: Options) -> None:
        self._steep, self._own_colors = options.steep, options.decontaminate

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """The frame with its alpha, which is nowhere more than the frame's own.

        Fully transparent pixels are black, since an alpha plane alone hides nothing.
        """
        share, person = matte(frame, mask, self._steep, frame.width, frame.height), replace(frame, alpha=None)
        if self._own_colors:
            person = blend_into(own_colors(frame, mask, self._steep), person, mask, self._steep)
        return hidden(person, share, 0)
