"""Mode mask: the network's probability as a grey picture."""

from portrait.core.compositors.blend import grey_frame, resize
from portrait.core.compositors.options import Options
from portrait.image.frame import Frame, Mask


class MaskCompositor:
    """White where the person is, black elsewhere, grey where the network is uncertain."""

    def __init__(self, options: Options) -> None:
        """No option applies."""

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """The probability at the frame's size as luma, without colour."""
        return grey_frame(frame, resize(mask.values, frame.width, frame.height))
