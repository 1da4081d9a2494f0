"""The seam between a mask and a picture, and the arithmetic every output mode shares."""

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from portrait.errors import BadOption
from portrait.frame import GREY, Frame, Plane, chroma_size
from portrait.mask import Mask


class Compositor(Protocol):
    """One output mode. Pure: the same frame and mask give the same frame."""

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """A new frame of the same size and time. An empty mask shows no pixel of the camera unblurred."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a session's result looks; replaced whole when it changes."""

    mode: str = "blur"
    color: str = "#00b140"
    """`#rrggbb`, the background of mode color."""
    background: Frame | None = None
    """The background of mode image."""

    def __post_init__(self) -> None:
        parse_color(self.color)


def parse_color(color: str) -> tuple[int, int, int]:
    """(red, green, blue) of `#rrggbb`.

    Raises:
        BadOption: written otherwise.
    """
    digits = color.removeprefix("#")
    if len(digits) != 6 or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
        raise BadOption("color", f"{color!r} is no colour; expected #rrggbb")
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)


def _steep_table() -> Plane:
    # The network's 28x28 decoder makes edges some ten pixels wide; blending with them as they are shows a halo of the
    # room. Probabilities up to 0.25 count as background, from 0.75 as person, smooth in between.
    x = np.clip((np.arange(256) / 255.0 - 0.25) / 0.5, 0.0, 1.0)
    return np.rint(255 * x * x * (3 - 2 * x)).astype(np.uint8)


STEEP = _steep_table()

# Frames carry luma in 16..235; a player shows these as 0..255 again.
TO_LIMITED: Plane = np.rint(16 + np.arange(256) * 219 / 255).astype(np.uint8)


def alpha(mask: Mask, width: int, height: int) -> Plane:
    """(height, width) uint8, the share of the person in every pixel: steeper than the probability."""
    # The table at the mask's size, then the resize: fewer pixels, and no steps along the edge.
    return resize(np.asarray(cv2.LUT(mask.values, STEEP), np.uint8), width, height)


def resize(plane: Plane, width: int, height: int) -> Plane:
    """`plane` at another size, bilinear."""
    return np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def blend_planes(frame: Frame, mask: Mask, background: tuple[Plane, Plane, Plane]) -> Frame:
    """The person of `frame` over `background`, plane by plane, without colour conversion."""
    luma = alpha(mask, frame.width, frame.height)
    chroma = alpha(mask, *chroma_size(frame.width, frame.height))
    y, u, v = background
    return frame.with_planes(_blend(frame.y, y, luma), _blend(frame.u, u, chroma), _blend(frame.v, v, chroma))


def blend_color(frame: Frame, mask: Mask, color: tuple[int, int, int]) -> Frame:
    """The person of `frame` over one colour, given as (y, u, v) in limited-range BT.601."""
    luma = alpha(mask, frame.width, frame.height)
    chroma = alpha(mask, *chroma_size(frame.width, frame.height))
    y, u, v = color
    return frame.with_planes(
        _blend_value(frame.y, y, luma), _blend_value(frame.u, u, chroma), _blend_value(frame.v, v, chroma)
    )


def grey_frame(frame: Frame, values: Plane) -> Frame:
    """(height, width) uint8 0..255 as a grey picture at the time of `frame`."""
    width, height = chroma_size(frame.width, frame.height)
    chroma = np.full((height, width), GREY, np.uint8)
    return frame.with_planes(np.asarray(cv2.LUT(values, TO_LIMITED), np.uint8), chroma, chroma)


# Saturating 8-bit arithmetic: half the time of cv2.blendLinear, a tenth of NumPy floats; exact where the share is 0 or
# 255.


def _blend(person: Plane, background: Plane, share: Plane) -> Plane:
    shown = cv2.multiply(person, share, scale=1 / 255)
    return np.asarray(cv2.add(shown, cv2.multiply(background, cv2.bitwise_not(share), scale=1 / 255)), np.uint8)


def _blend_value(person: Plane, value: int, share: Plane) -> Plane:
    shown = cv2.multiply(person, share, scale=1 / 255)
    # value * (255 - share) / 255 in one pass; a table look-up takes three times as long.
    return np.asarray(cv2.add(shown, cv2.convertScaleAbs(share, alpha=-value / 255, beta=value)), np.uint8)
