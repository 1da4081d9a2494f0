"""Output modes: what a session makes of a frame and its mask."""

from portrait.core.compositors.modes import MODES, Compositor, open_compositor
from portrait.core.compositors.options import Options

__all__ = ["MODES", "Compositor", "Options", "open_compositor"]
