"""What a training does to a picture: one warp to the network's size, then what cameras, light and codecs do."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

SHAPES = (16 / 9, 16 / 9, 4 / 3)
"""What cameras of calls see; most portraits of the data folder are upright."""


@dataclass(frozen=True)
class Strength:
    """How far the augmentation goes."""

    scale: tuple[float, float]
    skew: float
    """How far the two sides' scales may differ."""
    turn: float
    """Degrees."""
    shift: float
    """Share of the sides."""
    cut: float
    """Share of the pictures that are cut to a camera's shape."""
    light: float
    """How often and how far light and colour change; 1 is the paper's."""
    call: float
    """How often noise and compression are added; 0 is the paper's."""


PAPER = Strength(scale=(0.8, 1.5), skew=0.3, turn=20, shift=0.15, cut=0.0, light=1.0, call=0.0)
FULL = Strength(scale=(0.8, 1.4), skew=0.1, turn=12, shift=0.1, cut=0.45, light=0.8, call=0.8)
CALM = Strength(scale=(0.96, 1.1), skew=0.05, turn=4, shift=0.04, cut=0.35, light=0.3, call=0.3)


def warp(picture, rng, height, width, strength):
    """(image (height,width,3), label (height,width)) of a picture (h,w,4) with its label as the last channel.

    It is warped once: cut, turned, shifted, mirrored and squeezed. Borders are reflected: cameras show no black wedges.
    Where the picture gets smaller, the label is reduced by area, and so are half of the pictures; the others are
    sampled as the service does it.
    """
    rows, columns = picture.shape[:2]
    top, kept = 0.0, float(rows)
    if rng.random() < strength.cut:
        kept = min(kept, columns / rng.choice(SHAPES))
        top = rng.uniform(0, rows - kept) * rng.choice([0.0, 0.5, 1.0])
    across = rng.uniform(*strength.scale)
    down = across * rng.uniform(1 - strength.skew, 1 + strength.skew)
    angle = math.radians(rng.uniform(-strength.turn, strength.turn))
    x, y = rng.uniform(-strength.shift, strength.shift, 2)
    cosine, sine, mirror = math.cos(angle), math.sin(angle), rng.choice([-1.0, 1.0])
    turned = np.array([[across * cosine, -across * sine, 0], [down * sine, down * cosine, 0], [0, 0, 1]])
    squeezed = np.diag([mirror * width / columns, height / kept, 1.0])
    # From the picture's pixels, around the middle of what is kept, to the network's.
    matrix = _move(width * (0.5 + x), height * (0.5 + y)) @ turned @ squeezed @ _move(-columns / 2, -top - kept / 2)
    plain = _sample(picture, matrix, height, width)
    if min(columns / width / across, kept / height / down) <= 1.15:
        return apart(plain)
    reduced = cv2.resize(
        _sample(picture, np.diag([2.0, 2.0, 1.0]) @ matrix, 2 * height, 2 * width),
        (width, height),
        interpolation=cv2.INTER_AREA,
    )
    return apart(plain if rng.random() < 0.5 else reduced)[0], apart(reduced)[1]


def apart(picture):
    """(image (H,W,3), label (H,W)) of a picture (H,W,4)."""
    return cv2.cvtColor(picture, cv2.COLOR_BGRA2BGR), cv2.extractChannel(picture, 3)


def together(image, label):
    """(H,W,4) of an image (H,W,3) and its label (H,W)."""
    return cv2.merge([*cv2.split(image), label])


def noise(rng, shape, sigma):
    """Normal noise (H,W,C) float32 of a standard deviation."""
    return rng.standard_normal(shape, np.float32) * np.float32(sigma)


def _sample(picture, matrix, height, width):
    # OpenCV's pixels have their centres at whole numbers, the matrix has them at halves.
    centred = (_move(-0.5, -0.5) @ matrix @ _move(0.5, 0.5))[:2]
    return cv2.warpAffine(picture, centred, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _move(x, y):
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def light(image, rng, strength):
    """The picture (H,W,3) uint8 in another light, by another camera: brightness, contrast, gamma, colours, blur."""
    amount = strength.light
    if amount <= 0:
        return image
    image = cv2.LUT(image, _curves(rng, amount))
    if rng.random() < 0.25 * amount:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        kept = 0.0 if rng.random() < 0.2 else rng.uniform(0.4, 1.3)
        image = cv2.addWeighted(image, kept, grey, 1.0 - kept, 0.0)
    if rng.random() < 0.12 * amount:
        image = screen(image, rng)
    if rng.random() < 0.15 * amount:
        image = motion(image, rng)
    return image


def _curves(rng, amount):
    # Everything that changes a value by itself is one table of 256 values per channel.
    values = np.repeat(np.arange(256, dtype=np.float32)[:, None] / 255.0, 3, axis=1)
    if rng.random() < 0.5:
        contrast, shift = rng.uniform(-0.3, 0.3, 2) * amount
        values = (values - 0.5) * (1 + contrast) + 0.5 + shift
    if rng.random() < 0.3 * amount:
        values = np.clip(values, 0, 1) ** rng.uniform(0.6, 1.6)
    if rng.random() < 0.4 * amount:
        values = values * rng.uniform(0.82, 1.18, 3)
    if rng.random() < 0.08 * amount:  # over-exposed
        values = values * rng.uniform(1.2, 1.8)
    return np.clip(255 * values + 0.5, 0, 255).astype(np.uint8)[None]


def screen(image, rng):
    """A coloured light from one side, as a monitor's or a window's."""
    height, width = image.shape[:2]
    angle = rng.uniform(0, 2 * math.pi)
    x, y = np.meshgrid(np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32))
    ramp = np.clip(0.5 + 0.5 * (x * math.cos(angle) + y * math.sin(angle)), 0, 1)
    gain = 1 + ramp[..., None] * (rng.uniform(-0.4, 0.7) + rng.uniform(-0.15, 0.15, 3)).astype(np.float32)
    return np.clip(image * gain, 0, 255).astype(np.uint8)


def motion(image, rng):
    """Blurred along a line of 3 to 9 pixels, or out of focus."""
    length = int(rng.choice([3, 5, 7, 9]))
    if rng.random() < 0.4:
        return cv2.GaussianBlur(image, (0, 0), 0.2 * length)
    kernel = np.zeros((length, length), np.float32)
    middle, angle = length // 2, rng.uniform(0, math.pi)
    x, y = round(middle * math.cos(angle)), round(middle * math.sin(angle))
    cv2.line(kernel, (middle - x, middle - y), (middle + x, middle + y), 1.0)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)


def call(image, rng, strength):
    """The picture (H,W,3) uint8 as a sensor in poor light and a video call's codec leave it."""
    if rng.random() < 0.25 * strength.call:
        grain = noise(rng, image.shape, rng.uniform(2, 16))
        # Coarse as often as fine: cameras smooth what they see.
        grain = cv2.GaussianBlur(grain, (3, 3), 0) * 2 if rng.random() < 0.5 else grain
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
    if rng.random() < 0.1 * strength.call:
        height, width = image.shape[:2]
        share = rng.uniform(0.4, 0.8)
        small = cv2.resize(image, (max(1, round(share * width)), max(1, round(share * height))))
        image = cv2.resize(small, (width, height))
    if rng.random() < 0.3 * strength.call:
        quality = int(rng.integers(25, 85))
        image = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    return image
