"""A guided filter on luma, which moves a mask's contours to the edges of the picture.

Source: K. He, J. Sun, X. Tang, "Guided Image Filtering" (ECCV 2010), equations 5, 6 and 8. Around every pixel the mask
is approximated by a linear function of the luma, so that it changes where the picture does.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait.image.frame import Frame, Mask, Plane

SCALE = 2
"""The filter runs at the mask's size divided by this, the resolution of the embedded networks' contours: the same
boundary F as at full size in a fifth of the time. The mean of several looks is finer, and worth the full size."""

REACH = 1 / 48
"""How far the neighbourhood of a pixel reaches in every direction, as a part of the shorter side: two pixels of 96."""

FLAT = 1e-3 * 255**2
"""The variance of luma below which a neighbourhood counts as flat: the mask is only smoothed, so noise adds nothing."""


def make_fine_guide(frame: Frame, width: int, height: int) -> Plane:
    """(height, width) uint8: the luma of `frame` at the size of a mask whose contours are as fine as its pixels."""
    return np.asarray(cv2.resize(frame.y, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def make_guide(frame: Frame, width: int, height: int) -> Plane:
    """(height // 2, width // 2) uint8: the luma of `frame` at half the size of a mask of (width, height)."""
    # In two steps: averaging the whole frame takes longer than the filter, and sampling it once lets noise in.
    return halve(make_fine_guide(frame, width, height))


def halve(plane: Plane) -> Plane:
    """A plane at half its size, averaged."""
    size = plane.shape[1] // SCALE, plane.shape[0] // SCALE
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.uint8)


def follow_edges(mask: Mask, guide: Plane) -> Mask:
    """`mask` with its contour moved to nearby edges of the frame of `guide`. An empty mask stays empty.

    The neighbourhood has as many pixels of a guide of the mask's size as of one of half that size.
    """
    values = mask.values if guide.shape == mask.values.shape else halve(mask.values)
    reach = round(min(mask.width, mask.height) // SCALE * REACH)
    part = _reached(values, 2 * reach + 1)
    moved = np.zeros_like(values)
    if part is not None:
        moved[part] = _filtered(values[part], guide[part], reach)
    return Mask(np.asarray(cv2.resize(moved, (mask.width, mask.height), interpolation=cv2.INTER_LINEAR), np.uint8))


def _reached(values: Plane, distance: int) -> tuple[slice, slice] | None:
    """The rows and columns at most `distance` pixels from the box of what is not 0: beyond them the filter gives 0."""
    x, y, width, height = cv2.boundingRect(values)
    if not width:
        return None
    return slice(max(0, y - distance), y + height + distance), slice(max(0, x - distance), x + width + distance)


def _filtered(values: Plane, guide: Plane, reach: int) -> Plane:
    side = 2 * reach + 1

    def mean(plane: NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.boxFilter(plane, cv2.CV_32F, (side, side)), np.float32)

    # Products of levels fit into 16 bits, whose sums OpenCV makes in integers: half the time of floating point.
    mean_luma, mean_values = mean(guide), mean(values)
    covariance = mean(np.multiply(guide, values, dtype=np.uint16))
    covariance -= mean_luma * mean_values
    variance = mean(np.multiply(guide, guide, dtype=np.uint16))
    variance -= mean_luma * mean_luma
    variance += np.float32(FLAT)
    slope = np.divide(covariance, variance, out=covariance)
    fitted = mean(slope)
    fitted *= guide
    slope *= mean_luma
    fitted += mean(np.subtract(mean_values, slope, out=slope))
    # The values may lie outside of 0..255; the conversion takes absolute values.
    return np.asarray(cv2.convertScaleAbs(np.maximum(fitted, 0, out=fitted)), np.uint8)
