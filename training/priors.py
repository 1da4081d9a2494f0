"""The kinds of prior the network is trained with (paper, section III.B), and one more.

empty   a first frame, or a new object in the scene
small   the true mask after the movement of one frame
major   a mask that no longer fits, to be recognised and discarded
self    what the network itself says of the picture warped by a grid
stale   the mask of another person (a cut), or the true one with its own trail (fast movement): not in the paper

The paper's shares (40 % empty, 35 % small, 5 % major, 30 % self) sum to 110 %. PAPER takes five points each from the
first two: the paper says that without self-prediction "mask propagation doesn't train correctly at all", and the major
share is small already. Trained so, the network keeps a ghost of people who have moved or left; STEADY teaches it to let
go.
"""

import cv2
import numpy as np

from training import augment

PAPER = {"empty": 0.35, "small": 0.30, "major": 0.05, "self": 0.30}
STEADY = {"empty": 0.30, "small": 0.15, "major": 0.05, "self": 0.25, "stale": 0.25}

LEFT = 0.7
"""Of the rooms without people, the share whose prior still shows a person."""


def choose(rng, count, shares):
    """Kinds for a batch of `count`: exactly round(share * count) are "self", the others drawn by their shares.

    A fixed number keeps the shape of the self-prediction batch, and so the time of a step, the same.
    """
    own = round(shares["self"] * count)
    others = {kind: share for kind, share in shares.items() if kind != "self"}
    chances = np.array(list(others.values())) / sum(others.values())
    return rng.permutation(
        np.concatenate([rng.choice(list(others), size=count - own, p=chances), np.full(own, "self")])
    )


def from_truth(kind, mask, other, rng):
    """A prior (H,W) uint8 of any kind but "self", made of the true mask and the mask of another picture.

    In a room without people the kind does not matter: the prior is empty, or shows the person who has just left.
    """
    if not mask.any():
        return other if rng.random() < LEFT else np.zeros_like(mask)
    if kind == "empty":
        return np.zeros_like(mask)
    return {"small": small, "major": major, "stale": lambda mask, rng: stale(mask, other, rng)}[kind](mask, rng)


def stale(mask, other, rng):
    """Half of the time another person's mask, half of the time the true one with itself as it was some frames ago."""
    if rng.random() < 0.5:
        return other
    height, width = mask.shape
    x, y = rng.uniform(-0.25, 0.25) * width, rng.uniform(-0.1, 0.1) * height
    before = cv2.warpAffine(mask, np.float32([[1, 0, x], [0, 1, y]]), (width, height))
    return np.maximum(mask, before)


def small(mask, rng):
    """One frame's movement of camera and head: some per cent of shift, scale and rotation, an elastic warp, or both."""
    if rng.random() < 0.75:
        mask = moved(mask, rng, turn=6, scale=(0.93, 1.07), shift=0.05, border=cv2.BORDER_REPLICATE)
    return elastic(mask, rng, 0.01, cells=12) if rng.random() < 0.5 else mask


def major(mask, rng):
    """A mask that no longer belongs to the picture: half a frame away, far too large or small, turned."""
    mask = moved(mask, rng, turn=60, scale=(0.4, 1.8), shift=0.5, border=cv2.BORDER_CONSTANT)
    return mask[:, ::-1] if rng.random() < 0.5 else mask


def moved(mask, rng, *, turn, scale, shift, border):
    """The mask turned by up to `turn` degrees, scaled, and shifted by up to a share of its sides."""
    height, width = mask.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-turn, turn), rng.uniform(*scale))
    matrix[:, 2] += rng.uniform(-shift, shift, 2) * (width, height)
    return cv2.warpAffine(mask, matrix, (width, height), borderMode=border)


def elastic(picture, rng, amount, cells):
    """The picture with a grid of `cells` a side pulled about, by a standard deviation of `amount` of the sides."""
    height, width = picture.shape[:2]
    pulls = rng.normal(0.0, amount, (cells, cells, 2)).astype(np.float32) * np.float32([width, height])
    pulls = cv2.resize(pulls, (width, height), interpolation=cv2.INTER_CUBIC)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(picture, x + pulls[..., 0], y + pulls[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def distorted(image, rng):
    """The picture warped by a grid, or now and then only seen once more by a noisy sensor.

    The network's own mask of it becomes the prior of the picture as it is.
    """
    if rng.random() < 0.7:
        image = elastic(image, rng, rng.uniform(0.0, 0.05), cells=6)
    return np.clip(image + augment.noise(rng, image.shape, rng.uniform(2.5, 7.5)), 0, 255).astype(np.uint8)
