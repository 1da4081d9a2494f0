"""The interface of output modes, and the arithmetic they share."""

import math
from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np

from portrait.core.compositors.decontaminate import SQUARE, additions
from portrait.image.convert import laid_over
from portrait.image.frame import GREY, Frame, Mask, Plane, Planes, Range, chroma_size


class Compositor(Protocol):
    """One output mode. Pure: the same frame and mask give the same frame."""

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """A new frame of the same size and time. With an empty mask it shows no unblurred pixel of the camera."""


# In limited range luma is 16..235, which a player shows as 0..255.
TO_LIMITED: Plane = np.rint(16 + np.arange(256) * 219 / 255).astype(np.uint8)


def alpha(mask: Mask, width: int, height: int, steep: Plane) -> Plane:
    """(height, width) uint8, the share of the person in every pixel, by the table `Options.steep`."""
    # The table comes before the resize: it has fewer pixels to look up, and leaves no steps along the edge.
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


def blend_into(behind: Planes, frame: Frame, mask: Mask, steep: Plane, own_colors: bool = False) -> Frame:
    """The person of `frame` over the planes `behind`, without colour conversion, by the table `Options.steep`.

    `behind` has the frame's sizes and colours; it is written to and becomes the result. Where the frame is transparent,
    it shows through the person. With `own_colors` the old background's light is removed from the person's edge
    (decontaminate.py).
    """
    share = np.asarray(cv2.LUT(mask.values, steep), np.uint8)
    x, y, width, height = cv2.boundingRect(share)
    if not width:
        return frame.with_planes(*behind)
    untouched = None if frame.alpha is None else (behind[0].copy(), behind[1].copy(), behind[2].copy())
    weight = np.asarray(cv2.LUT(share, SQUARE), np.uint8) if own_colors else share
    added: Sequence[Plane | None] = additions(frame, behind, share) if own_colors else (None, None, None)
    for person, background, more in zip((frame.y, frame.u, frame.v), behind, added, strict=True):
        rows, target_rows = _window(y, height, mask.height, person.shape[0])
        columns, target_columns = _window(x, width, mask.width, person.shape[1])
        _blend_into(
            background[target_rows, target_columns],
            person[target_rows, target_columns],
            share[rows, columns],
            weight[rows, columns],
            None if more is None else more[rows, columns],
        )
    made = frame.with_planes(*behind)
    return made if untouched is None or frame.alpha is None else laid_over(untouched, made, frame.alpha)


def _window(first: int, count: int, side: int, target: int) -> tuple[slice, slice]:
    """The part of a mask's rows or columns to blend, and the same part of a plane with `target` of them.

    The mask is 0 outside of `count` pixels from `first` on. It is cut where a pixel of the mask and one of the plane
    begin at the same place, with a pixel of 0 to spare, so that resizing the part gives what resizing all of it would.
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
