"""Mode image: the person over another picture or over a clip."""

from portrait.core.compositors.blend import blend_into
from portrait.core.compositors.options import Options
from portrait.errors import BadOption
from portrait.image.clip import Clip
from portrait.image.convert import fit_cover, recolored
from portrait.image.frame import Frame, Mask


class ImageCompositor:
    """Keeps the background fitted to the last frame's size and colours.

    Raises:
        BadOption: the options hold no background.
    """

    def __init__(self, options: Options) -> None:
        if options.background is None:
            raise BadOption("background", "got mode image without a background, expected a name or a picture")
        self._background, self._steep = options.background, options.steep
        self._own_colors = options.decontaminate
        self._source: Frame | None = None
        self._fitted: Frame | None = None

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """The person over the background, which covers the frame; of a clip, over its picture at the frame's time."""
        background = self._background
        source = background.at(frame.seconds) if isinstance(background, Clip) else background
        if self._fitted is None or source is not self._source or not _alike(self._fitted, frame):
            fitted = fit_cover(source, frame.width, frame.height)
            self._source, self._fitted = source, recolored(fitted, frame.colors)
        behind = self._fitted.y.copy(), self._fitted.u.copy(), self._fitted.v.copy()
        return blend_into(behind, frame, mask, self._steep, self._own_colors)


def _alike(fitted: Frame, frame: Frame) -> bool:
    return fitted.y.shape == frame.y.shape and fitted.colors == frame.colors
