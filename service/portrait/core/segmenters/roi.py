"""The region of interest of a stream: the network looks at the part of the picture around the person.

The paper's prior says where the person was; this takes it one step on. Most of what a network sees of a wide picture is
the room, so the picture is cut to a box around the last mask, and what lies outside is background. Every `INTERVAL`
frames, or earlier when something changes outside, the whole picture is looked at as well, so that nobody who comes in
is missed.
"""

from dataclasses import dataclass
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait.core.guided_filter import halve
from portrait.core.segmenters.base import DerivedModel, Segmenter
from portrait.image.frame import Frame, Mask, Plane

MARGIN = 0.25
"""Distance from the person to each side of a new box, as a share of the person's size."""

LEAST_MARGIN = 0.08
"""A box stays while the person keeps this distance from its sides."""

GROWTH = 1.6
"""A box is replaced when it has this many times the area of a new one."""

LARGEST = 0.6
"""Share of the picture's area from which a box shows the network little more than the whole picture does."""

SMALLEST = 0.01
"""Share of the picture's area from which the box without its margin is looked at: what is smaller is hardly a person,
and looks at the part and at the whole would lose and find it by turns."""

LEAST = 48
"""Pixels that a side of a box has at least."""

SLIMMEST = 0.5
"""Shortest over longest side of a box, as squeezed into the network: it has not learned from slimmer pictures."""

INTERVAL = 30
"""Frames from one look at the whole picture to the next."""

SOONEST = 5
"""Frames between two such looks when something changes outside the box: a moving camera changes everything there."""

CELLS = (16, 9)
"""Columns and rows: what lies outside is compared by the mean luma of these cells, which averages noise out."""

CHANGED = 6.0
"""Levels of 255 by which such a cell may change."""


@dataclass(frozen=True, slots=True)
class Box:
    """Part of a frame in pixels. Even numbers, for chroma's sake, but for the frame's own last row or column."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        """Pixels."""
        return (self.right - self.left) * (self.bottom - self.top)

    def cut(self, frame: Frame) -> Frame:
        """The part of the frame."""
        rows, columns = slice(self.top, self.bottom), slice(self.left, self.right)
        half = slice(self.top // 2, (self.bottom + 1) // 2), slice(self.left // 2, (self.right + 1) // 2)
        return frame.with_planes(frame.y[rows, columns], frame.u[half], frame.v[half])

    def placing(self, frame: Frame, width: int, height: int) -> NDArray[np.float64]:
        """The matrix (2,3) from pixels of this part's mask (height,width) to those of the whole frame's."""
        across, down = (self.right - self.left) / frame.width, (self.bottom - self.top) / frame.height
        x, y = self.left * width / frame.width, self.top * height / frame.height
        # OpenCV's pixels have their centres at whole numbers.
        return np.array([[across, 0, x + across / 2 - 0.5], [0, down, y + down / 2 - 0.5]])

    def within(self, frame: Frame, width: int, height: int) -> tuple[slice, slice]:
        """The rows and columns of a picture (height,width) of the frame that this part touches."""
        rows = slice(self.top * height // frame.height, -(-self.bottom * height // frame.height))
        return rows, slice(self.left * width // frame.width, -(-self.right * width // frame.width))


class RoiModel(DerivedModel):
    """A Model for streams: its segmenters look at the part of the picture around the person."""

    def open(self) -> "RoiSegmenter":
        """A segmenter with a prior of its own. Call it on the thread that will use it."""
        return RoiSegmenter(self.model.open(), self.model.width, self.model.height)


class RoiSegmenter:
    """A segmenter that keeps a box around the person from frame to frame. Its masks are of the whole picture."""

    def __init__(self, segmenter: Segmenter, width: int, height: int) -> None:
        self._segmenter, self._width, self._height = segmenter, width, height
        self._box: Box | None = None
        """What the next look is at; None for the whole picture."""
        self._last: Plane | None = None
        """The last mask, unless it has been forgotten."""
        self._size = (0, 0)
        self._cells: Plane | None = None
        """Of the last frame that was looked at as a whole."""
        self._since = 0
        """Frames since then; while there is no box, since one was looked for."""
        self._forgot = self._forgot_before = False
        """Whether the prior has been forgotten since the last frame, and whether it had been before that one."""

    def segment(self, frame: Frame) -> Mask:
        """The mask of `frame`, which becomes the prior of the next one.

        Raises:
            SegmentationFailed: the network stopped or gave values that are no probabilities.
        """
        if self._box is not None and (frame.width, frame.height) != self._size:
            self._look_at(None, frame, self._last)
        self._size = frame.width, frame.height
        box = self._box
        values = self._whole(frame) if box is None else self._part(frame, box)
        self._last = values
        self._forgot_before, self._forgot = self._forgot, False
        return Mask(values, fine=box is not None)

    def reset(self) -> None:
        """Forget the prior: the next frame is a first frame.

        That happens at a cut, where the box says nothing either, and at every frame while the person or the camera
        moves fast: then the box follows them from the second frame on.
        """
        if not self._forgot_before:
            self._box = None
        self._last, self._forgot = None, True
        self._segmenter.reset()

    def resume(self, prior: Mask) -> None:
        """Take `prior`, of the model's size, as the mask before the next frame. Without effect on a stateless model."""
        self._box, self._last, self._since = None, prior.values, SOONEST
        self._segmenter.resume(prior)

    def close(self) -> None:
        """Free the interpreter's memory. Idempotent; nothing else may be called afterwards."""
        self._segmenter.close()

    def _whole(self, frame: Frame) -> Plane:
        """(height,width) uint8: the mask of a look at the whole picture."""
        values = self._segmenter.segment(frame).values
        self._since += 1
        if self._last is not None and self._since < SOONEST:
            return values  # a box has been looked for lately, and the person has hardly become smaller
        self._since = 0
        box = self._choose(frame, values)
        if box is not None:
            self._cells = _cells(frame)
            self._look_at(box, frame, values)
        return values

    def _part(self, frame: Frame, box: Box) -> Plane:
        """(height,width) uint8: the mask of a look at the box, and at the whole picture if it is time for that."""
        seen = self._segmenter.segment(box.cut(frame)).values
        size = self._width, self._height
        values = np.asarray(cv2.warpAffine(seen, box.placing(frame, *size), size), np.uint8)
        self._since += 1
        is_due = self._since >= INTERVAL or (self._since >= SOONEST and self._has_changed(frame, box))
        if is_due:
            self._look_at(None, frame, self._last)
            outside = self._segmenter.segment(frame).values.copy()
            inside = box.within(frame, *size)
            outside[inside] = values[inside]
            values = outside
            self._cells, self._since = _cells(frame), 0
        self._box = box
        chosen = self._choose(frame, values)
        if is_due or chosen != box:
            self._look_at(chosen, frame, values)
        return values

    def _look_at(self, box: Box | None, frame: Frame, values: Plane | None) -> None:
        """Look at `box` next, with what lies in it of the mask `values` as the prior; None: with no prior."""
        self._box = box
        if values is None:
            self._segmenter.reset()
            return
        if box is not None:
            size = self._width, self._height
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            part = cv2.warpAffine(values, box.placing(frame, *size), size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
            values = np.asarray(part, np.uint8)
        self._segmenter.resume(Mask(values))

    def _choose(self, frame: Frame, values: Plane) -> Box | None:
        """What to look at next: the box of now while it fits, a new one, or None for the whole picture."""
        person = find_person(values)
        if person is None:
            return None
        new = person.box_in(frame, MARGIN)
        share = new.area / (frame.width * frame.height)
        if share < SMALLEST * (1 + 2 * MARGIN) ** 2 or share > LARGEST:
            return None
        old = self._box
        if old is None or old.area > GROWTH * new.area:
            return new
        kept = person.box_in(frame, LEAST_MARGIN)
        fits = old.left <= kept.left and old.top <= kept.top and old.right >= kept.right and old.bottom >= kept.bottom
        return old if fits else new

    def _has_changed(self, frame: Frame, box: Box) -> bool:
        if self._cells is None:
            return True
        difference = cv2.absdiff(_cells(frame), self._cells)
        difference[box.within(frame, *CELLS)] = 0
        return bool(difference.max() > CHANGED)


def _cells(frame: Frame) -> Plane:
    # Fewer pixels are enough for a mean, and reading all of them takes six times as long.
    every = slice(None, None, min(4, frame.height)), slice(None, None, min(4, frame.width))
    thinned = frame.y[every] if frame.small is None else halve(frame.small)
    return np.asarray(cv2.resize(thinned, CELLS, interpolation=cv2.INTER_AREA), np.uint8)


@dataclass(frozen=True, slots=True)
class Person:
    """The smallest upright rectangle around all of a person, in pixels of a mask of (width, height)."""

    x: int
    y: int
    width: int
    height: int
    mask_size: tuple[int, int]

    def box_in(self, frame: Frame, margin: float) -> Box:
        """The box around the person in the mask's frame, with a margin and sides that are not too short."""
        mask_width, mask_height = self.mask_size
        across, down = frame.width / mask_width, frame.height / mask_height
        # In the network's pixels if the box were not squeezed: a wide network takes wide boxes.
        shape = mask_width / mask_height
        longest = (1 + 2 * margin) * SLIMMEST * max(self.width * across, shape * self.height * down)
        left, right = _side(self.x * across, self.width * across, margin, max(LEAST, longest), frame.width)
        top, bottom = _side(self.y * down, self.height * down, margin, max(LEAST, longest / shape), frame.height)
        return Box(left, top, right, bottom)


def find_person(values: Plane) -> Person | None:
    """Where the person of the mask `values` is; None: nobody."""
    x, y, width, height = cv2.boundingRect(cv2.threshold(values, 127, 255, cv2.THRESH_BINARY)[1])
    return Person(x, y, width, height, (values.shape[1], values.shape[0])) if width else None


def _side(start: float, length: float, margin: float, least: float, pixels: int) -> tuple[int, int]:
    """First pixel and end of a part with a margin and of a least length, inside the frame."""
    length, middle = max((1 + 2 * margin) * length, min(least, pixels)), start + length / 2
    first = max(0, int(middle - length / 2) // 2 * 2)
    return first, min(pixels, -(-ceil(middle + length / 2) // 2) * 2)
