"""Clips of a person whose masks are exact: a portrait cut out by its own mask and moved over another background.

The first is in the public domain and the same everywhere, so that tests are. The others are portraits of the val
split where `TEST_PORTRAITS` (default: `../shared/data/portraits` beside the checkout) holds them, elsewhere the first.
"""

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.uint8]

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("TEST_PORTRAITS", ROOT.parent / "shared" / "data" / "portraits"))


@dataclass(frozen=True)
class Person:
    """(H,W,3) BGR and its mask, 0 or 255."""

    image: Array
    mask: Array


@dataclass(frozen=True)
class Clip:
    """Frames (H,W,3) BGR with their exact masks (H,W), 0 or 255."""

    frames: list[Array]
    masks: list[Array]


def person(number: int = 0) -> Person:
    """The same person for the same number; 0 may be shown."""
    names = portrait_names()
    if not number or not names:
        return shown_person()
    name = names[number % len(names)]
    image = cv2.imread(str(DATA / "images" / f"{name}.jpg"))
    mask = cv2.imread(str(DATA / "masks" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
    return Person(np.asarray(image, np.uint8), np.asarray(mask, np.uint8))


def portrait_names() -> list[str]:
    """Selfies of the val split that fill the frame like a video call; empty where the data is absent."""
    index = DATA / "index.csv"
    if not index.exists():
        return []
    with index.open(newline="") as file:
        return [
            row["name"]
            for row in csv.DictReader(file)
            if row["split"] == "val" and row["name"].startswith("self_") and row["framing"] == "portrait"
        ]


def shown_person() -> Person:
    """Eileen Collins, head and shoulders (docs/pictures)."""
    image = cv2.imread(str(ROOT / "docs" / "pictures" / "astronaut.jpg"))
    mask = cv2.imread(str(ROOT / "tests" / "samples" / "astronaut.png"), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    return Person(np.asarray(image[:352, 30:374], np.uint8), np.asarray(mask, np.uint8))


def room(width: int, height: int, seed: int = 3) -> Array:
    """A wall, a window and some furniture, with texture: nothing of a person in it."""
    rng = np.random.default_rng(seed)
    base = np.linspace(150, 205, width, dtype=np.float32)[None, :, None] * np.array([0.92, 0.97, 1.0], np.float32)
    picture = np.broadcast_to(base, (height, width, 3)).copy()
    for _ in range(7):
        x, y = rng.uniform(0, width), rng.uniform(0, height * 0.8)
        w, h = rng.uniform(0.1, 0.3) * width, rng.uniform(0.1, 0.35) * height
        color = [float(value) for value in rng.uniform(40, 220, 3)]
        cv2.rectangle(picture, (int(x), int(y)), (int(x + w), int(y + h)), color, -1)
    noise = cv2.GaussianBlur(rng.normal(0, 12, (height, width, 3)).astype(np.float32), (0, 0), 1.0)
    return np.clip(picture + noise * 2, 0, 255).astype(np.uint8)


def clip(width: int, height: int, count: int, number: int = 0, background: Array | None = None) -> Clip:
    """`count` frames of a person swaying sideways before a room."""
    return swaying(person(number), width, height, count, background=background)


def swaying(
    who: Person, width: int, height: int, count: int, background: Array | None = None, share: float = 1.0
) -> Clip:
    """The same of a given person, who takes `share` of the picture's height."""
    tall = round(height * share)
    size = round(who.image.shape[1] * tall / who.image.shape[0]), tall
    image = cv2.resize(who.image, size, interpolation=cv2.INTER_LINEAR)
    mask = cv2.resize(who.mask, size, interpolation=cv2.INTER_NEAREST)
    behind = room(width, height) if background is None else background
    frames, masks = [], []
    for i in range(count):
        sway = 0.06 * width * np.sin(2 * np.pi * i / 60)
        shift = np.float32([[1, 0, (width - size[0]) / 2 + sway], [0, 1, height - tall]])
        moved = cv2.warpAffine(image, shift, (width, height), borderMode=cv2.BORDER_REPLICATE)
        shape = cv2.warpAffine(mask, shift, (width, height), flags=cv2.INTER_NEAREST)
        soft = cv2.GaussianBlur(shape, (3, 3), 0)[..., None].astype(np.float32) / 255
        frames.append((moved * soft + behind * (1 - soft)).astype(np.uint8))
        masks.append(np.asarray(shape, np.uint8))
    return Clip(frames, masks)


def iou(truth: Array, predicted: Array) -> float:
    """|A and B| / |A or B| of two masks cut at half."""
    a, b = truth > 127, predicted > 127
    return float(np.count_nonzero(a & b) / max(1, np.count_nonzero(a | b)))
