"""The seam between a mask and a picture, and the arithmetic every output mode shares."""

import math
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


def blend_into(room: tuple[Plane, Plane, Plane], frame: Frame, mask: Mask) -> Frame:
    """The person of `frame` over `room`, plane by plane, without colour conversion.

    The planes of `room` have the frame's sizes; they are written to and are the result's.
    """
    steep = np.asarray(cv2.LUT(mask.values, STEEP), np.uint8)
    x, y, width, height = cv2.boundingRect(steep)
    if width:
        for person, background in zip((frame.y, frame.u, frame.v), room, strict=True):
            rows, target_rows = _window(y, height, mask.height, person.shape[0])
            columns, target_columns = _window(x, width, mask.width, person.shape[1])
            _blend_into(
                background[target_rows, target_columns], person[target_rows, target_columns], steep[rows, columns]
            )
    return frame.with_planes(*room)


def _window(first: int, count: int, side: int, target: int) -> tuple[slice, slice]:
    """Where a mask that is 0 outside of `count` pixels from `first` on can be cut, and where that lies in a plane.

    Cut where a mask's and a plane's pixel begin together, and past a pixel of 0: resizing gives what resizing the whole
    mask would have given there.
    """
    step = side // math.gcd(side, target)
    start = max(first - 1, 0) // step * step
    stop = min(-(-(first + count + 1) // step) * step, side)
    return slice(start, stop), slice(start * target // side, stop * target // side)


def _blend_into(background: Plane, person: Plane, steep: Plane) -> None:
    # Saturating 8-bit arithmetic: half the time of cv2.blendLinear, a tenth of NumPy floats; exact where the share is 0
    # or 255.
    share = resize(steep, person.shape[1], person.shape[0])
    shown = cv2.multiply(person, share, scale=1 / 255)
    rest = cv2.multiply(background, cv2.bitwise_not(share, dst=share), dst=share, scale=1 / 255)
    cv2.add(shown, rest, dst=background)


def grey_frame(frame: Frame, values: Plane) -> Frame:
    """(height, width) uint8 0..255 as a grey picture at the time of `frame`."""
    width, height = chroma_size(frame.width, frame.height)
    chroma = np.full((height, width), GREY, np.uint8)
    return frame.with_planes(np.asarray(cv2.LUT(values, TO_LIMITED), np.uint8), chroma, chroma)
