"""Masks whose contours follow the picture's: a guided filter on luma.

Source: K. He, J. Sun, X. Tang, "Guided Image Filtering" (ECCV 2010), equations 5, 6 and 8. Around every pixel the mask
is fitted by a line of the luma, so that it turns where the picture does.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait.frame import Plane
from portrait.mask import Mask

SCALE = 2
"""The filter runs at half the mask's size, where the embedded networks draw their contours: a fifth of the time of the
full size for the same boundary F."""

KERNEL = (5, 5)
"""Pixels of the neighbourhood at that size."""

FLAT = 1e-3 * 255**2
"""Variance of luma below which a neighbourhood counts as flat: there the mask is only smoothed, and noise stays out."""


def follow_edges(mask: Mask, luma: Plane) -> Mask:
    """`mask` with its contour on the edges of `luma` (any size, uint8) near it. An empty mask stays empty."""
    size = mask.width // SCALE, mask.height // SCALE
    guide, values = _small(luma, mask, size), _halved(mask.values, size)
    mean_guide, mean_values = _mean(guide), _mean(values)
    covariance = _mean(guide * values) - mean_guide * mean_values
    variance = _mean(guide * guide) - mean_guide * mean_guide
    slope = np.asarray(covariance / (variance + FLAT), np.float32)
    fitted = _mean(slope) * guide + _mean(mean_values - slope * mean_guide)
    # A fit may leave 0..255 on either side; the conversion takes absolutes.
    small = cv2.convertScaleAbs(np.maximum(fitted, 0, out=fitted))
    return Mask(np.asarray(cv2.resize(small, (mask.width, mask.height), interpolation=cv2.INTER_LINEAR), np.uint8))


def _small(luma: Plane, mask: Mask, size: tuple[int, int]) -> NDArray[np.float32]:
    # By way of the mask's size: averaging a whole frame takes longer than the filter, and picking pixels lets noise in.
    plane = cv2.resize(luma, (mask.width, mask.height), interpolation=cv2.INTER_LINEAR)
    return _halved(np.asarray(plane, np.uint8), size)


def _halved(plane: Plane, size: tuple[int, int]) -> NDArray[np.float32]:
    return cv2.resize(plane, size, interpolation=cv2.INTER_AREA).astype(np.float32)


def _mean(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.blur(values, KERNEL), np.float32)
