"""The output modes, a class each in the table MODES: a frame and its mask to a picture."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait.core.compositors.decontaminate import SQUARE, additions, person_colors
from portrait.core.compositors.options import Options, parse_color
from portrait.errors import BadOption
from portrait.image.clip import Clip
from portrait.image.convert import fit_cover, flattened, hidden, laid_over, recolored, yuv_from_rgb
from portrait.image.frame import CAMERA, GREY, Frame, Mask, Plane, Planes, Range, chroma_size

GREY_MODES = ("mask", "alpha")
"""The modes whose result is one number per pixel, without anything of the picture itself."""

HIDING_MODES = ("silhouette", "pixelate", "blur-person")
"""The modes that hide the person and keep the room. What they need besides a mask is in core/hiding.py."""

SHORT_SIDE = 72
"""The blur is computed with this many pixels on the shorter side: it looks the same at every frame size and costs
little."""

KERNEL = 9
"""Pixels of the box at that size: one eighth of the frame. Faces and print cannot be recognised."""

CELLS = 10
"""Cells of mode pixelate along the shorter side: a face that fills half of the picture has five."""

SAMPLES = 8
"""Pixels of a cell that its mean is taken of, along each side: the mean of all takes five times as long."""

FAR = 1e-2
"""The weight of a person's pixel in the blur, where a background pixel's is 1: deep inside the person, where only they
are within the box, the mean is theirs."""

UNCHANGED: Plane = np.arange(256, dtype=np.uint8)
"""A table that leaves a share as it is."""

# In limited range luma is 16..235, which a player shows as 0..255.
TO_LIMITED: Plane = np.rint(16 + np.arange(256) * 219 / 255).astype(np.uint8)


class Compositor(Protocol):
    """One output mode. Pure: the same frame and mask give the same frame."""

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """A new frame of the same size and time.

        With an empty mask it shows no unblurred pixel of the camera; in HIDING_MODES with one of 255 everywhere.
        """


class MaskCompositor:
    """White where the person is, black elsewhere, grey where the network is uncertain."""

    def __init__(self, options: Options) -> None:
        """No option applies."""

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """The probability at the frame's size as luma, without colour."""
        return grey_frame(frame, resize(mask.values, frame.width, frame.height))


class AlphaCompositor:
    """A matte to blend with: the probability with steeper edges, at the frame's size."""

    def __init__(self, options: Options) -> None:
        self._steep = options.steep

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """The share of the person as luma, without colour."""
        return grey_frame(frame, matte(frame, mask, self._steep, frame.width, frame.height))


class BlurCompositor:
    """Blurs the background only, so that the person's colours do not bleed into it as a halo."""

    def __init__(self, options: Options) -> None:
        self._steep = options.steep

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """The person over the blurred background."""
        if frame.alpha is not None:
            frame = flattened(frame)
        scale = max(1.0, min(frame.width, frame.height) / SHORT_SIDE)
        width, height = max(1, round(frame.width / scale)), max(1, round(frame.height / scale))
        weight = np.float32(1 + FAR) - person_share(mask, width, height, self._steep) * np.float32(1 / 255)
        return blend_into(_blurred(frame, weight), frame, mask, self._steep)


def _blurred(frame: Frame, weight: NDArray[np.float32]) -> Planes:
    """Normalised convolution at the size of `weight`: the mean of the pixels within the box, by their weights."""
    height, width = weight.shape
    weights = _box(weight)

    def blurred(plane: Plane) -> Plane:
        weighted = cv2.multiply(resize(plane, width, height), weight, dtype=cv2.CV_32F)
        mean = cv2.divide(_box(weighted), weights, dtype=cv2.CV_8U)
        return resize(np.asarray(mean, np.uint8), plane.shape[1], plane.shape[0])

    return blurred(frame.y), blurred(frame.u), blurred(frame.v)


def _box(values: cv2.typing.MatLike) -> cv2.typing.MatLike:
    return cv2.blur(values, (KERNEL, KERNEL))


class ColorCompositor:
    """Fills the background with `options.color`."""

    def __init__(self, options: Options) -> None:
        self._color = parse_color(options.color)
        self._colors, self._levels = CAMERA, yuv_from_rgb(*self._color, CAMERA)
        self._steep, self._own_colors = options.steep, options.decontaminate

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """The person over the colour."""
        if frame.colors != self._colors:
            self._colors, self._levels = frame.colors, yuv_from_rgb(*self._color, frame.colors)
        y, u, v = map(np.full_like, (frame.y, frame.u, frame.v), self._levels)
        return blend_into((y, u, v), frame, mask, self._steep, self._own_colors)


class ImageCompositor:
    """Keeps the background fitted to the last frame's size and colours.

    Raises:
        BadOption: the options hold no background.
    """

    def __init__(self, options: Options) -> None:
        if options.background is None:
            raise BadOption("background", "got mode image without a background, expected a name or a picture")
        self._background, self._steep = options.background, options.steep
        self._own_colors = options.decontaminate
        self._source: Frame | None = None
        self._fitted: Frame | None = None

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """The person over the background, which covers the frame; of a clip, over its picture at the frame's time."""
        background = self._background
        source = background.at(frame.seconds) if isinstance(background, Clip) else background
        if self._fitted is None or source is not self._source or not _alike(self._fitted, frame):
            fitted = fit_cover(source, frame.width, frame.height)
            self._source, self._fitted = source, recolored(fitted, frame.colors)
        behind = self._fitted.y.copy(), self._fitted.u.copy(), self._fitted.v.copy()
        return blend_into(behind, frame, mask, self._steep, self._own_colors)


def _alike(fitted: Frame, frame: Frame) -> bool:
    return fitted.y.shape == frame.y.shape and fitted.colors == frame.colors


class CutoutCompositor:
    """Opaque where the person is, transparent elsewhere."""

    def __init__(self, options: Options) -> None:
        self._steep, self._own_colors = options.steep, options.decontaminate

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """The frame with its alpha, which is nowhere more than the frame's own.

        Fully transparent pixels are black, since an alpha plane alone hides nothing.
        """
        share, person = matte(frame, mask, self._steep, frame.width, frame.height), replace(frame, alpha=None)
        if self._own_colors:
            person = blend_into(person_colors(frame, mask, self._steep), person, mask, self._steep)
        return hidden(person, share, 0)


class HidingCompositor(ABC):
    """Covers the person, and `options.margin` around them, and leaves the rest of the picture as it is.

    Hidden is every pixel that the other modes would show a part of the person in, so that the soft edge lies outside.
    """

    def __init__(self, options: Options) -> None:
        self._steep, self._margin = options.steep, options.margin

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """The frame with its person covered."""
        frame = flattened(frame)
        hidden = Mask(hidden_area(mask, self._steep, self._margin))
        kept = frame.y.copy(), frame.u.copy(), frame.v.copy()
        return blend_into(kept, frame.with_planes(*self.cover(frame)), hidden, UNCHANGED)

    @abstractmethod
    def cover(self, frame: Frame) -> Planes:
        """Planes of the frame's sizes that show no person, laid over the frame where the person is."""


class SilhouetteCompositor(HidingCompositor):
    """Covers the person with `options.color`."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._color = parse_color(options.color)

    def cover(self, frame: Frame) -> Planes:
        """The colour."""
        y, u, v = map(np.full_like, (frame.y, frame.u, frame.v), yuv_from_rgb(*self._color, frame.colors))
        return y, u, v


class PixelateCompositor(HidingCompositor):
    """Covers the person with large cells of one colour each."""

    def cover(self, frame: Frame) -> Planes:
        """The mean of each cell."""
        scale = max(1.0, min(frame.width, frame.height) / CELLS)
        across, down = max(1, round(frame.width / scale)), max(1, round(frame.height / scale))

        def cells(plane: Plane) -> Plane:
            sampled = resize(plane, SAMPLES * across, SAMPLES * down)
            small = cv2.resize(sampled, (across, down), interpolation=cv2.INTER_AREA)
            return np.asarray(cv2.resize(small, plane.shape[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)

        return cells(frame.y), cells(frame.u), cells(frame.v)


class BlurPersonCompositor(HidingCompositor):
    """Blurs the person as mode blur does the background."""

    def cover(self, frame: Frame) -> Planes:
        """The frame, blurred."""
        scale = max(1.0, min(frame.width, frame.height) / SHORT_SIDE)
        even = np.ones((max(1, round(frame.height / scale)), max(1, round(frame.width / scale))), np.float32)
        return _blurred(frame, even)


def hidden_area(mask: Mask, steep: Plane, margin: float) -> Plane:
    """(h, w) uint8 of the mask's size, 255 where a pixel is hidden, else 0.

    It reaches `margin` of the shorter side beyond the person.
    """
    area = cv2.threshold(cv2.LUT(mask.values, steep), 0, 255, cv2.THRESH_BINARY)[1]
    reach = 2 * math.ceil(margin * min(mask.width, mask.height)) + 1
    return np.asarray(cv2.dilate(area, np.ones((reach, reach), np.uint8)), np.uint8)


MODES: Mapping[str, Callable[[Options], Compositor]] = {
    "mask": MaskCompositor,
    "alpha": AlphaCompositor,
    "blur": BlurCompositor,
    "color": ColorCompositor,
    "image": ImageCompositor,
    "cutout": CutoutCompositor,
    "silhouette": SilhouetteCompositor,
    "pixelate": PixelateCompositor,
    "blur-person": BlurPersonCompositor,
}


def open_compositor(options: Options) -> Compositor:
    """The compositor of `options.mode`.

    Raises:
        BadOption: the mode is unknown, or an option it needs is missing.
    """
    if options.mode not in MODES:
        raise BadOption("mode", f"unknown mode {options.mode!r}; expected one of {list(MODES)}")
    return MODES[options.mode](options)


def person_share(mask: Mask, width: int, height: int, steep: Plane) -> Plane:
    """(height, width) uint8, the share of the person in every pixel, by the table `Options.steep`."""
    # The table comes before the resize: it has fewer pixels to look up, and leaves no steps along the edge.
    return resize(np.asarray(cv2.LUT(mask.values, steep), np.uint8), width, height)


def resize(plane: Plane, width: int, height: int) -> Plane:
    """`plane` at another size, bilinear."""
    return np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def matte(frame: Frame, mask: Mask, steep: Plane, width: int, height: int) -> Plane:
    """(height, width) uint8: the share of the person, nowhere more than the frame's own alpha."""
    share = person_share(mask, width, height, steep)
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
    shape: tuple[int, ...] = ()
    for person, background, more in zip((frame.y, frame.u, frame.v), behind, added, strict=True):
        if person.shape != shape:  # the two planes of chroma share what is resized for them
            shape = person.shape
            rows, target_rows = _window(y, height, mask.height, shape[0])
            columns, target_columns = _window(x, width, mask.width, shape[1])
            size = target_columns.stop - target_columns.start, target_rows.stop - target_rows.start
            taken = resize(share[rows, columns], *size)
            shown = taken if weight is share else resize(weight[rows, columns], *size)
            left = np.asarray(cv2.bitwise_not(taken), np.uint8)
        target = background[target_rows, target_columns]
        _blend_into(target, left, person[target_rows, target_columns], shown)
        if more is not None:
            cv2.add(target, resize(more[rows, columns], *size), dst=target)
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


def _blend_into(background: Plane, left: Plane, person: Plane, shown: Plane) -> None:
    """Add the share `shown` of `person` to the share `left` of `background`, in place."""
    # Saturating 8-bit arithmetic: half the time of cv2.blendLinear, a tenth of NumPy floats; exact where the share is 0
    # or 255.
    cv2.multiply(background, left, dst=background, scale=1 / 255)
    cv2.add(background, cv2.multiply(person, shown, scale=1 / 255), dst=background)


def grey_frame(frame: Frame, values: Plane) -> Frame:
    """(height, width) uint8 0..255 as a grey picture at the time of `frame`."""
    width, height = chroma_size(frame.width, frame.height)
    chroma = np.full((height, width), GREY, np.uint8)
    luma = values if frame.colors.range is Range.FULL else np.asarray(cv2.LUT(values, TO_LIMITED), np.uint8)
    return frame.with_planes(luma, chroma, chroma)
