"""Stills: pictures that stand alone are looked at several times, which costs a stream too much.

A picture and its mirror image are averaged, since the errors of the two differ most along the contour; where the person
is small, the part around them is looked at once more, at a higher resolution.
"""

from dataclasses import replace

import cv2
import numpy as np

from portrait.core.segmenters.base import DerivedModel, Segmenter
from portrait.image.convert import turned
from portrait.image.frame import Frame, Mask, Plane

LOOKS = 4
"""Inferences of a picture, at most: of the whole and of the part around the person, each with its mirror image."""

MARGIN = 0.25
"""Room on each side of the box around the person, as a share of the box."""

CLOSER = 0.6
"""The box is looked at if it has less than this share of the picture's area: else there is nothing to gain."""

MIRRORED = 2
"""The orientation of EXIF that is the mirror image."""

LEAST = 32
"""Pixels that a side of the box must have."""

Box = tuple[int, int, int, int]
"""Top, bottom, left and right, in pixels of a frame; even numbers, but for the frame's own last row or column."""


class StillModel(DerivedModel):
    """A Model for stills: its segmenters look at a picture several times. What takes a prior looks once."""

    def open(self) -> "StillSegmenter":
        """A segmenter for pictures that have nothing to do with each other."""
        return StillSegmenter(self.model.open(), self.model.width, self.model.height)


class StillSegmenter:
    """A segmenter whose every picture stands alone, unless it is given a prior."""

    def __init__(self, segmenter: Segmenter, width: int, height: int) -> None:
        self._segmenter, self._width, self._height = segmenter, width, height
        self._has_prior = False

    def segment(self, frame: Frame) -> Mask:
        """The mask of `frame`: the mean of several looks, or one look that continues from a prior.

        Raises:
            SegmentationFailed: the network stopped or gave values that are no probabilities.
        """
        if self._has_prior:
            return self._segmenter.segment(frame)
        whole = self._look(frame)
        box = find_box(whole, frame)
        return Mask(whole if box is None else self._closer(whole, frame, box), fine=True)

    def reset(self) -> None:
        """Forget the prior: the next frame is looked at several times."""
        self._has_prior = False
        self._segmenter.reset()

    def resume(self, prior: Mask) -> None:
        """Take `prior`, of the model's size, as the mask before the next frame. Without effect on a stateless model."""
        self._has_prior = True
        self._segmenter.resume(prior)

    def close(self) -> None:
        """Free the interpreter's memory. Idempotent; nothing else may be called afterwards."""
        self._segmenter.close()

    def _look(self, frame: Frame) -> Plane:
        """(height, width) uint8: the mean mask of `frame` and of its mirror image."""
        small = _resized(frame, self._width, self._height)
        plain, mirrored = self._once(small), self._once(turned(small, MIRRORED))
        return _mean(plain, np.ascontiguousarray(mirrored[:, ::-1]))

    def _once(self, frame: Frame) -> Plane:
        self._segmenter.reset()
        return self._segmenter.segment(frame).values

    def _closer(self, whole: Plane, frame: Frame, box: Box) -> Plane:
        """`whole`, within the box averaged with what a look at that part of the frame gives."""
        top, bottom, left, right = box
        half = (slice(top // 2, (bottom + 1) // 2), slice(left // 2, (right + 1) // 2))
        part = frame.with_planes(frame.y[top:bottom, left:right], frame.u[half], frame.v[half])
        seen = self._look(part)
        # The look is laid into the mask by its corners, which need not lie on the mask's pixels.
        across, down = self._width / frame.width, self._height / frame.height
        scale = (right - left) * across / self._width, (bottom - top) * down / self._height
        matrix = np.array(
            [
                [scale[0], 0, left * across + scale[0] / 2 - 0.5],
                [0, scale[1], top * down + scale[1] / 2 - 0.5],
            ]
        )
        placed = cv2.warpAffine(seen, matrix, (self._width, self._height), flags=cv2.INTER_LINEAR)
        return _mean(whole, np.asarray(placed, np.uint8))


def find_box(mask: Plane, frame: Frame) -> Box | None:
    """The box around the person of a mask, with its margin; None where a closer look would not see much more."""
    across, down, width, height = cv2.boundingRect(np.asarray(mask > 127, np.uint8))
    if not width:
        return None
    left, right = _sides(across / mask.shape[1], width / mask.shape[1], frame.width)
    top, bottom = _sides(down / mask.shape[0], height / mask.shape[0], frame.height)
    if min(right - left, bottom - top) < LEAST:
        return None
    if (right - left) * (bottom - top) >= CLOSER * frame.width * frame.height:
        return None
    return top, bottom, left, right


def _sides(start: float, length: float, pixels: int) -> tuple[int, int]:
    """First pixel and end of a part that begins and is as long as these shares of `pixels`, with its margin."""
    first = max(0, int((start - MARGIN * length) * pixels) // 2 * 2)
    end = min(pixels, -(-int((start + length + MARGIN * length) * pixels) // 2) * 2)
    return first, end


def _resized(frame: Frame, width: int, height: int) -> Frame:
    """`frame` at the size of a network's input, as the network would take it."""
    sizes = (width, height), (width // 2, height // 2), (width // 2, height // 2)
    planes = (
        np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        for plane, size in zip((frame.y, frame.u, frame.v), sizes, strict=True)
    )
    return replace(frame.with_planes(*planes), full_size=None)


def _mean(one: Plane, other: Plane) -> Plane:
    return np.asarray(cv2.addWeighted(one, 0.5, other, 0.5, 0), np.uint8)
