"""Mode image: the person in front of another picture, which may move."""

from portrait.core.compositors.blend import blend_into
from portrait.core.compositors.options import Options
from portrait.errors import BadOption
from portrait.image.clip import Clip
from portrait.image.convert import fit_cover, recolored
from portrait.image.frame import Frame
from portrait.image.mask import Mask


class ImageCompositor:
    """The background, fitted, is kept for the size and the colours it was last made for.

    Raises:
        BadOption: the options hold no background.
    """

    def __init__(self, options: Options) -> None:
        if options.background is None:
            raise BadOption("background", "mode image was asked for without one; expected a name or a picture")
        self._background, self._steep = options.background, options.steep
        self._own_colors = options.decontaminate
        self._source: Frame | None = None
        self._fitted: Frame | None = None

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """The person over the background, which covers the frame; over a film's picture at the frame's time."""
        background = self._background
        source = background.at(frame.seconds) if isinstance(background, Clip) else background
        if self._fitted is None or source is not self._source or not _alike(self._fitted, frame):
            fitted = fit_cover(source, frame.width, frame.height)
            self._source, self._fitted = source, recolored(fitted, frame.colors)
        room = self._fitted.y.copy(), self._fitted.u.copy(), self._fitted.v.copy()
        return blend_into(room, frame, mask, self._steep, self._own_colors)


def _alike(fitted: Frame, frame: Frame) -> bool:
    return fitted.y.shape == frame.y.shape and fitted.colors == frame.colors
