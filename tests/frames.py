"""Frames for the core, which knows no transport: one, and the codec that leaves them as they are."""

from fractions import Fraction

from portrait.core.compositors import Options
from portrait.core.pipeline import Result
from portrait.image.convert import frame_from_bgr
from portrait.image.frame import Frame, Timestamp
from tests.people import room

GREEN = Options("color", "#00ff00")


class FrameCodec:
    """Frames as they are; the composed frame comes out."""

    modes = ("mask", "color", "blur")

    def decode(self, picture: Frame, arrived: float, options: Options) -> Frame:
        return picture

    def encode(self, result: Result, picture: Frame) -> Frame:
        return result.compose()


def make_frame(arrived: float = 0.0, size: tuple[int, int] = (64, 48)) -> Frame:
    return frame_from_bgr(room(*size), Timestamp(0, Fraction(1)), arrived)
