"""A watermark in the room behind a person, or on the person, and the search for it in what comes out.

The room is a code: signs of pseudo-random tiles on a carrier, a checkerboard of four pixels, in luma and in both
chroma planes. Four pixels, and on the grid of the codecs' own blocks, so that VP8 and JPEG keep it; far finer than the
blur, so that nothing of it is left there. The search correlates each plane with the code, window by window: what is
found is the share of the watermark's own strength in the window where it is strongest.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.people import Array, person, room

Floats = NDArray[np.float32]

CELL = 4
"""Pixels of the checkerboard's fields."""

TILE = 16
"""Pixels of the code's tiles: of one sign each."""

WINDOW = 32
"""Pixels of the windows that are searched, in the plane's own pixels."""

STEP = 8

STRENGTH = (36.0, 28.0, 28.0)
"""Levels by which the code goes up and down in Y, U and V."""

READABLE = 0.09
"""Share of the watermark's strength in a window from which on it counts as seen. A patch of ten by ten pixels that
leaks whole, or a whole window that is blended in by a tenth, is that much. What is clean stays far below
(`test_watermark.py`)."""


def code(width: int, height: int) -> Floats:
    """(height, width) of 1 and -1: the pattern of one plane, the same for the same size."""
    signs = np.random.default_rng(7).choice(np.float32([-1, 1]), (-(-height // TILE), -(-width // TILE)))
    y, x = np.indices((height, width))
    board = 1 - 2 * ((x // CELL + y // CELL) % 2)
    return np.float32(board) * signs.repeat(TILE, 0).repeat(TILE, 1)[:height, :width]


def half(size: int) -> int:
    return (size + 1) // 2


def marked_room(width: int, height: int) -> Array:
    """(H,W,3) BGR: grey, and the watermark. Sides are even."""
    luma = 128 + STRENGTH[0] * code(width, height)
    chroma = [128 + strength * code(half(width), half(height)) for strength in STRENGTH[1:]]
    planes = [np.asarray(plane, np.uint8) for plane in (luma, *chroma)]
    packed = np.concatenate([plane.reshape(-1) for plane in planes]).reshape(height * 3 // 2, width)
    return np.asarray(cv2.cvtColor(packed, cv2.COLOR_YUV2BGR_I420), np.uint8)


WORN_FROM = 0.55
"""Where the watermark begins on a person who wears it, as a share of their height from the top: below the face."""


@dataclass(frozen=True)
class Scene:
    """A person before the marked room, or before another one who wears the watermark on their own clothes (`worn`)."""

    width: int
    height: int
    worn: bool = False
    image: Array = field(init=False, repr=False)
    """(H,W,3) BGR."""
    mask: Array = field(init=False, repr=False)
    """(H,W), 255 where the person is."""

    def __post_init__(self) -> None:
        who = person()
        scale = 0.8 * min(self.height / who.image.shape[0], self.width / who.image.shape[1])
        size = round(who.image.shape[1] * scale), round(who.image.shape[0] * scale)
        left, top = (self.width - size[0]) // 2, self.height - size[1]
        behind = room(self.width, self.height) if self.worn else marked_room(self.width, self.height)
        image, mask = behind, np.zeros((self.height, self.width), np.uint8)
        mask[top:, left : left + size[0]] = cv2.resize(who.mask, size, interpolation=cv2.INTER_NEAREST)
        shown = cv2.resize(who.image, size, interpolation=cv2.INTER_LINEAR)
        inside = mask[top:, left : left + size[0]] > 0
        image[top:, left : left + size[0]][inside] = shown[inside]
        if self.worn:
            clothes = self.clothes_of(mask)
            worn = image.astype(int) + marked_room(self.width, self.height) - 128
            image[clothes] = np.clip(worn, 0, 255).astype(np.uint8)[clothes]
        object.__setattr__(self, "image", image)
        object.__setattr__(self, "mask", mask)

    @staticmethod
    def clothes_of(mask: Array) -> NDArray[np.bool_]:
        """(H,W): where a person wears the watermark."""
        rows = np.flatnonzero(mask.any(axis=1))
        clothes = mask > 0
        clothes[: round(rows[0] + WORN_FROM * len(rows))] = False
        return clothes


class Search:
    """Looks for the watermark in pictures of one size, outside of the person and their contour, or on their clothes."""

    def __init__(self, scene: Scene, margin: float = 0.05, *, on_person: bool = False) -> None:
        """`margin`: how far from the person's contour the search begins, as a share of the height."""
        reach = 2 * round(margin * scene.height) + 1
        around = np.ones((reach, reach), np.uint8)
        person = np.uint8(255) * ~scene.clothes_of(scene.mask) if on_person else scene.mask
        elsewhere = cv2.dilate(person, around)
        self._planes = []
        for plane in range(3):
            width, height = (scene.width, scene.height) if not plane else (half(scene.width), half(scene.height))
            searched = cv2.resize(elsewhere, (width, height), interpolation=cv2.INTER_AREA) == 0
            windows = _windows(np.float32(searched)) > 0.99
            assert windows.any() or (plane and on_person), f"{scene.width}x{scene.height} is too small: no window"
            self._planes.append((code(width, height) / STRENGTH[plane], windows))

    def strongest(self, planes: tuple[Array, Array, Array]) -> float:
        """The share of the watermark in the window where it is strongest, of the three planes (H,W) uint8."""
        return max(
            self._strongest(plane, pattern, outside)
            for plane, (pattern, outside) in zip(planes, self._planes, strict=True)
        )

    @staticmethod
    def _strongest(plane: Array, pattern: Floats, outside: NDArray[np.bool_]) -> float:
        # The mean of a tile's neighbourhood says nothing of the code and much of the picture.
        bare = plane.astype(np.float32)
        bare -= cv2.blur(bare, (2 * CELL + 1, 2 * CELL + 1))
        shares = _windows(bare * pattern)
        return float(np.abs(shares[outside]).max(initial=0.0))


def _windows(values: Floats) -> Floats:
    """Means of all windows, every STEP pixels."""
    half_window = WINDOW // 2
    means = cv2.blur(values, (WINDOW, WINDOW), borderType=cv2.BORDER_CONSTANT)
    return np.asarray(means[half_window:-half_window:STEP, half_window:-half_window:STEP], np.float32)


def planes_of(bgr: Array) -> tuple[Array, Array, Array]:
    """Y, U and V of (H,W,3) BGR with even sides."""
    height, width = bgr.shape[:2]
    return split(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420), np.uint8).reshape(-1), width, height)


def split(packed: Array, width: int, height: int) -> tuple[Array, Array, Array]:
    """Y, U and V of packed I420."""
    sizes = (width, height), (half(width), half(height)), (half(width), half(height))
    planes, start = [], 0
    for across, down in sizes:
        planes.append(packed[start : start + across * down].reshape(down, across))
        start += across * down
    return planes[0], planes[1], planes[2]
