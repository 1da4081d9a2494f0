"""Mode blur: the person unchanged over a blurred background."""

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait.core.compositors.blend import alpha, blend_into, resize
from portrait.core.compositors.options import Options
from portrait.image.convert import flattened
from portrait.image.frame import Frame, Mask, Plane

SHORT_SIDE = 72
"""The blur is computed with this many pixels on the shorter side: it looks the same at every frame size and costs
little."""

KERNEL = 9
"""Pixels of the box at that size: one eighth of the frame. Faces and print cannot be recognised."""

FAR = 1e-2
"""The weight of a person's pixel in the blur, where a background pixel's is 1: deep inside the person, where only they
are within the box, the mean is theirs."""


class BlurCompositor:
    """Blurs the background only, so that the person's colours do not bleed into it as a halo."""

    def __init__(self, options: Options) -> None:
        self._steep = options.steep

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """The person over the blurred background."""
        frame = flattened(frame)
        scale = max(1.0, min(frame.width, frame.height) / SHORT_SIDE)
        width, height = max(1, round(frame.width / scale)), max(1, round(frame.height / scale))
        weight = np.float32(1 + FAR) - alpha(mask, width, height, self._steep) * np.float32(1 / 255)
        y, u, v = (_blurred(plane, weight) for plane in (frame.y, frame.u, frame.v))
        return blend_into((y, u, v), frame, mask, self._steep)


def _blurred(plane: Plane, weight: NDArray[np.float32]) -> Plane:
    """Normalised convolution at the size of `weight`: the mean of the pixels within the box, by their weights."""
    height, width = weight.shape
    weighted = cv2.multiply(resize(plane, width, height), weight, dtype=cv2.CV_32F)
    mean = cv2.divide(_box(weighted), _box(weight), dtype=cv2.CV_8U)
    return resize(np.asarray(mean, np.uint8), plane.shape[1], plane.shape[0])


def _box(values: cv2.typing.MatLike) -> cv2.typing.MatLike:
    return cv2.blur(values, (KERNEL, KERNEL))
