"""Mode blur: the person as they are, the room blurred."""

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait.compositors.base import Options, alpha, blend_into, resize
from portrait.frame import Frame, Plane, chroma_size
from portrait.mask import Mask

SHORT_SIDE = 72
"""The blur is made at this size of the shorter side: the same look at every frame size, a fraction of the cost."""

KERNEL = 9
"""Pixels of the box at that size: one eighth of the frame. Faces and print in the room are past recognition."""


class BlurCompositor:
    """Blurs the room only: the person's own colours do not bleed into it as a halo."""

    def __init__(self, options: Options) -> None:
        """Takes no option."""

    def compose(self, frame: Frame, mask: Mask) -> Frame:
        """The person over the blurred room."""
        scale = max(1.0, min(frame.width, frame.height) / SHORT_SIDE)
        width, height = max(1, round(frame.width / scale)), max(1, round(frame.height / scale))
        room = np.float32(1.0) - alpha(mask, width, height).astype(np.float32) * np.float32(1 / 255)
        weight = _box(room)
        full, half = (frame.width, frame.height), chroma_size(frame.width, frame.height)
        planes = ((frame.y, full), (frame.u, half), (frame.v, half))
        y, u, v = (_blurred(plane, width, height, room, weight, size) for plane, size in planes)
        return blend_into((y, u, v), frame, mask)


def _blurred(
    plane: Plane, width: int, height: int, room: NDArray[np.float32], weight: NDArray[np.float32], size: tuple[int, int]
) -> Plane:
    """Normalised convolution: the mean of the room's pixels within the box, of all pixels where the room is far."""
    small = resize(plane, width, height).astype(np.float32)
    far = np.float32(1e-2)
    mean = (_box(small * room) + far * _box(small)) / (weight + far)
    return resize(np.asarray(cv2.convertScaleAbs(mean), np.uint8), *size)


def _box(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.blur(values, (KERNEL, KERNEL)), np.float32)
