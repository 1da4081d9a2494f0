"""Removing the old background's light from the person's edge, where a pixel is part person and part background.

Over another background, such a pixel brings the old one's light along. With the share a of the person in the pixel I,
and the mean F of the person's pixels around it, the person's colour is taken to be a I + (1 - a) F: pixels that are
surely the person's stay as they are, others get the colour of their surroundings. This is one pass of M. Forte,
"Approximate Fast Foreground Colour Estimation" (ICIP 2021), without its correction by the mean of the old background,
which would double the work for a fifth more effect.

The light of the new background falls on the edge as well: F is mixed with the mean L of the new background around the
pixel. With the new background N the result is

    a^2 I + (1 - a) N + a (1 - a) ((1 - w) F + w L)

whose last term changes so slowly that it is computed at the mask's size. It is 0 where a is 0 or 1.
"""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait.image.frame import Frame, Mask, Plane, Planes

SIDE = 64
"""The means are computed at this width and height."""

KERNEL = 5
"""Pixels of the box at that size: from the middle of an edge it reaches pixels that are entirely the person's."""

LEAST = 1e-3
"""Added to the sum of the weights, which is 0 where no person is within the box."""

LIGHT = 0.3
"""The new background's part of the mean: one twelfth of the pixel in the middle of the edge."""


def _table(share: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Plane:
    return np.rint(255 * share(np.arange(256) / 255)).astype(np.uint8)


SQUARE = _table(lambda a: a * a)
BETWEEN = _table(lambda a: a * (1 - a))


def additions(frame: Frame, behind: Planes, share: Plane) -> list[Plane]:
    """The last term for Y, U and V, at the size of `share`: (h, w) uint8, the person's share at the mask's size."""
    between = np.asarray(cv2.LUT(share, BETWEEN), np.uint8)
    found = []
    for own, plane in zip(_means(frame, share), behind, strict=True):
        light = cv2.blur(_small(plane), (KERNEL, KERNEL))
        mixed = cv2.addWeighted(own, 1 - LIGHT, light, LIGHT, 0)
        found.append(np.asarray(cv2.multiply(_at_size_of(share, mixed), between, scale=1 / 255), np.uint8))
    return found


def person_colors(frame: Frame, mask: Mask, steep: Plane) -> Planes:
    """The mean of the person's pixels around each pixel, as planes of the frame's sizes."""
    share = np.asarray(cv2.LUT(mask.values, steep), np.uint8)
    y, u, v = (
        np.asarray(cv2.resize(mean, plane.shape[::-1]), np.uint8)
        for mean, plane in zip(_means(frame, share), (frame.y, frame.u, frame.v), strict=True)
    )
    return y, u, v


def _means(frame: Frame, share: Plane) -> Iterator[cv2.typing.MatLike]:
    # The square of the share: pixels that are mostly background say little about the person's colour.
    weight = np.asarray(cv2.LUT(_small(share), SQUARE), np.float32) * np.float32(1 / 255)
    total = cv2.blur(weight, (KERNEL, KERNEL)) + np.float32(LEAST)
    for plane in (frame.y, frame.u, frame.v):
        weighted = cv2.multiply(_small(plane), weight, dtype=cv2.CV_32F)
        yield cv2.divide(cv2.blur(weighted, (KERNEL, KERNEL)), total, dtype=cv2.CV_8U)


def _small(plane: Plane) -> Plane:
    # Sampled, not averaged: the box averages.
    return np.asarray(cv2.resize(plane, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR), np.uint8)


def _at_size_of(share: Plane, small: cv2.typing.MatLike) -> Plane:
    return np.asarray(cv2.resize(small, (share.shape[1], share.shape[0])), np.uint8)
