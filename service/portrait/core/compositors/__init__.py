"""Output modes: what a session makes of a frame and its mask."""

from portrait.core.compositors.modes import GREY_MODES, HIDING_MODES, MODES, Compositor, open_compositor
from portrait.core.compositors.options import Options

__all__ = ["GREY_MODES", "HIDING_MODES", "MODES", "Compositor", "Options", "open_compositor"]
