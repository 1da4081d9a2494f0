"""Output modes: one file each, and this table of names."""

from collections.abc import Callable, Mapping

from portrait.core.compositors.alpha import AlphaCompositor
from portrait.core.compositors.blend import Compositor
from portrait.core.compositors.blur import BlurCompositor
from portrait.core.compositors.color import ColorCompositor
from portrait.core.compositors.cutout import CutoutCompositor
from portrait.core.compositors.image import ImageCompositor
from portrait.core.compositors.mask import MaskCompositor
from portrait.core.compositors.options import Options
from portrait.errors import BadOption

__all__ = ["MODES", "Compositor", "Options", "open_compositor"]

MODES: Mapping[str, Callable[[Options], Compositor]] = {
    "mask": MaskCompositor,
    "alpha": AlphaCompositor,
    "blur": BlurCompositor,
    "color": ColorCompositor,
    "image": ImageCompositor,
    "cutout": CutoutCompositor,
}


def open_compositor(options: Options) -> Compositor:
    """The compositor of `options.mode`.

    Raises:
        BadOption: the mode is unknown, or an option it needs is missing.
    """
    if options.mode not in MODES:
        raise BadOption("mode", f"unknown mode {options.mode!r}; expected one of {list(MODES)}")
    return MODES[options.mode](options)
