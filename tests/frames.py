"""Frames for the core, which knows no transport: one, and the codec that leaves them as they are."""

from fractions import Fraction

from portrait.core.compositors import Options
from portrait.core.pipeline import Result
from portrait.image.compressed import decode_frame
from portrait.image.convert import bgr_from_frame, frame_from_bgr
from portrait.image.frame import Frame, Plane, Timestamp
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


def decode_bgr(data: bytes, max_pixels: int, field: str = "image") -> Plane:
    """(H,W,3) uint8 BGR of a JPEG, PNG or WebP file, as `decode_frame`."""
    return bgr_from_frame(decode_frame(data, max_pixels, field, Timestamp(0, Fraction(1)), 0.0))
