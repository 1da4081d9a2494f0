"""Mode image: the person in front of another picture."""

from portrait.compositors.base import Options, blend_into
from portrait.errors import BadOption
from portrait.frame import Frame
from portrait.mask import Mask
from portrait.pictures import fit_cover


class ImageCompositor:
    """The background, fitted, is kept for the size it was last made for.

    Raises:
        BadOption: the options hold no background.
    """

    def __init__(self, options: Options) -> None:
        if options.background is None:
            raise BadOption("background", "mode image was asked for without one; expected a name or a picture")
        self._background = options.background
        self._fitted: Frame | None = None

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """The person over the background, which covers the frame."""
        if self._fitted is None or self._fitted.y.shape != frame.y.shape:
            self._fitted = fit_cover(self._background, frame.width, frame.height)
        return blend_into((self._fitted.y.copy(), self._fitted.u.copy(), self._fitted.v.copy()), frame, mask)
