"""The seam between a mask and a picture, and the arithmetic every output mode shares."""

import math
from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np

from portrait.core.compositors.decontaminate import SQUARE, additions
from portrait.image.convert import laid_over
from portrait.image.frame import GREY, Frame, Plane, Planes, Range, chroma_size
from portrait.image.mask import Mask


class Compositor(Protocol):
    """One output mode. Pure: the same frame and mask give the same frame."""

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """A new frame of the same size and time. An empty mask shows no pixel of the camera unblurred."""


# In limited range luma is 16..235, which a player shows as 0..255.
TO_LIMITED: Plane = np.rint(16 + np.arange(256) * 219 / 255).astype(np.uint8)


def alpha(mask: Mask, width: int, height: int, steep: Plane) -> Plane:
    """(height, width) uint8, the share of the person in every pixel, by the table `Options.steep`."""
    # The table at the mask's size, then the resize: fewer pixels, and no steps along the edge.
    return resize(np.asarray(cv2.LUT(mask.values, steep), np.uint8), width, height)


def resize(plane: Plane, width: int, height: int) -> Plane:
    """`plane` at another size, bilinear."""
    return np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def matte(frame: Frame, mask: Mask, steep: Plane, width: int, height: int) -> Plane:
    """(height, width) uint8: the share of the person, nowhere more than the frame's own alpha."""
    share = alpha(mask, width, height, steep)
    if frame.alpha is None:
        return share
    own = frame.alpha if frame.alpha.shape == share.shape else resize(frame.alpha, width, height)
    return np.asarray(cv2.min(share, own), np.uint8)


def blend_into(room: Planes, frame: Frame, mask: Mask, steep: Plane, own_colors: bool = False) -> Frame:
    """The person of `frame` over `room`, plane by plane, without colour conversion, by the table `Options.steep`.

    The planes of `room` have the frame's sizes and colours; they are written to and are the result's. Where the frame
    is transparent, the room shows through the person. With `own_colors` the person's edge is freed of the old room's
    light (decontaminate.py).
    """
    share = np.asarray(cv2.LUT(mask.values, steep), np.uint8)
    x, y, width, height = cv2.boundingRect(share)
    if not width:
        return frame.with_planes(*room)
    behind = None if frame.alpha is None else (room[0].copy(), room[1].copy(), room[2].copy())
    weight = np.asarray(cv2.LUT(share, SQUARE), np.uint8) if own_colors else share
    added: Sequence[Plane | None] = additions(frame, room, share) if own_colors else (None, None, None)
    for person, background, more in zip((frame.y, frame.u, frame.v), room, added, strict=True):
        rows, target_rows = _window(y, height, mask.height, person.shape[0])
        columns, target_columns = _window(x, width, mask.width, person.shape[1])
        _blend_into(
            background[target_rows, target_columns],
            person[target_rows, target_columns],
            share[rows, columns],
            weight[rows, columns],
            None if more is None else more[rows, columns],
        )
    made = frame.with_planes(*room)
    return made if behind is None or frame.alpha is None else laid_over(behind, made, frame.alpha)


def _window(first: int, count: int, side: int, target: int) -> tuple[slice, slice]:
    """Where a mask that is 0 outside of `count` pixels from `first` on can be cut, and where that lies in a plane.

    Cut where a mask's and a plane's pixel begin together, and past a pixel of 0: resizing gives what resizing the whole
    mask would have given there.
    """
    step = side // math.gcd(side, target)
    start = max(first - 1, 0) // step * step
    stop = min(-(-(first + count + 1) // step) * step, side)
    return slice(start, stop), slice(start * target // side, stop * target // side)


def _blend_into(background: Plane, person: Plane, share: Plane, weight: Plane, more: Plane | None) -> None:
    # Saturating 8-bit arithmetic: half the time of cv2.blendLinear, a tenth of NumPy floats; exact where the share is 0
    # or 255.
    size = person.shape[1], person.shape[0]
    taken = resize(share, *size)
    shown = cv2.multiply(person, taken if weight is share else resize(weight, *size), scale=1 / 255)
    rest = cv2.multiply(background, cv2.bitwise_not(taken, dst=taken), dst=taken, scale=1 / 255)
    cv2.add(shown, rest, dst=background)
    if more is not None:
        cv2.add(background, resize(more, *size), dst=background)


def grey_frame(frame: Frame, values: Plane) -> Frame:
    """(height, width) uint8 0..255 as a grey picture at the time of `frame`."""
    width, height = chroma_size(frame.width, frame.height)
    chroma = np.full((height, width), GREY, np.uint8)
    luma = values if frame.colors.range is Range.FULL else np.asarray(cv2.LUT(values, TO_LIMITED), np.uint8)
    return frame.with_planes(luma, chroma, chroma)
