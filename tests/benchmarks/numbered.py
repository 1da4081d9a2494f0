"""A clip whose frames are numbered: each has its number drawn where the person is, so that no output mode hides it."""

from dataclasses import asdict, dataclass

import cv2
import numpy as np

from tests.people import Array, Clip

COLUMNS, ROWS = 4, 3
BITS = 8
"""Blocks, row by row: dark, bright, eight bits of the number with the highest first, an even and an odd parity."""

DARK, BRIGHT = 60, 190
"""Grey values far enough apart for any codec, and near enough to a shirt for the network."""


@dataclass(frozen=True)
class Place:
    """Where the blocks are, in pixels of the camera's picture."""

    x: int
    y: int
    block: int


def place_of(clip: Clip) -> Place:
    """The middle of the largest circle in which the person is in every frame."""
    always = cv2.copyMakeBorder(np.min(clip.masks, axis=0), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(0,))
    _, radius, _, (x, y) = cv2.minMaxLoc(cv2.distanceTransform(always, cv2.DIST_L2, 5))
    block = int(radius / np.hypot(COLUMNS / 2, ROWS / 2))
    return Place(x - COLUMNS * block // 2, y - ROWS * block // 2, block)


def blocks(number: int) -> list[bool]:
    """Which blocks are bright."""
    bits = [bool(number >> bit & 1) for bit in reversed(range(BITS))]
    parity = sum(bits) % 2 == 1
    return [False, True, *bits, parity, not parity]


def numbered(clip: Clip, count: int = 2**BITS) -> tuple[Clip, Place]:
    """The clip over and over until `count` frames are numbered from 0, and where the numbers are."""
    place, frames = place_of(clip), list[Array]()
    for number in range(count):
        frame = clip.frames[number % len(clip.frames)].copy()
        for index, bright in enumerate(blocks(number)):
            row, column = divmod(index, COLUMNS)
            y, x = place.y + row * place.block, place.x + column * place.block
            frame[y : y + place.block, x : x + place.block] = BRIGHT if bright else DARK
        frames.append(frame)
    return Clip(frames, clip.masks), place


def as_json(place: Place) -> dict[str, int]:
    """For the page."""
    return asdict(place)
