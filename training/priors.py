"""The kinds of prior the network is trained with (paper, section III.B), and one more.

empty   a first frame, or a new object in the scene
small   the true mask after the movement of one frame
major   a mask that no longer fits, to be recognised and discarded
self    what the network itself says of the picture warped by a grid
stale   the mask of somebody else (a cut), or the true one with its own trail (fast movement): not in the paper

The paper's shares (40 % empty, 35 % small, 5 % major, 30 % self) sum to 110 %. PAPER takes five points each from the
first two: the paper says that without self-prediction "mask propagation doesn't train correctly at all", and the major
share is small already. Trained so, the network keeps a ghost of who has moved or left; STEADY teaches it to let go.
"""

import albumentations as A
import cv2
import numpy as np

PAPER = {"empty": 0.35, "small": 0.30, "major": 0.05, "self": 0.30}
STEADY = {"empty": 0.30, "small": 0.10, "major": 0.05, "self": 0.30, "stale": 0.25}

LEFT = 0.7
"""Of the rooms without anybody, the share whose prior still shows somebody."""


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

    In a room without anybody the kind does not matter: the prior is empty, or shows who has just left.
    """
    if not mask.any():
        return other if rng.random() < LEFT else np.zeros_like(mask)
    if kind == "empty":
        return np.zeros_like(mask)
    if kind == "stale":
        return stale(mask, other, rng)
    transform = {"small": small, "major": major}[kind](int(rng.integers(2**31)))
    return transform(image=mask)["image"]


def stale(mask, other, rng):
    """Half of the time somebody else's mask, half of the time the true one with itself as it was some frames ago."""
    if rng.random() < 0.5:
        return other
    height, width = mask.shape
    x, y = rng.uniform(-0.25, 0.25) * width, rng.uniform(-0.1, 0.1) * height
    before = cv2.warpAffine(mask, np.float32([[1, 0, x], [0, 1, y]]), (width, height))
    return np.maximum(mask, before)


def small(seed):
    """One frame's movement of camera and head: some per cent of shift, scale and rotation, an elastic warp, or both."""
    return A.Compose(
        [
            A.Affine(
                scale=(0.93, 1.07),
                translate_percent=(-0.05, 0.05),
                rotate=(-6, 6),
                shear=(-3, 3),
                border_mode=cv2.BORDER_REPLICATE,
                p=0.75,
            ),
            A.ElasticTransform(alpha=60, sigma=8, p=0.5),
        ],
        seed=seed,
    )


def major(seed):
    """A mask that no longer belongs to the picture: half a frame away, far too large or small, turned."""
    return A.Compose(
        [A.Affine(scale=(0.4, 1.8), translate_percent=(-0.5, 0.5), rotate=(-60, 60), p=1.0), A.HorizontalFlip(p=0.5)],
        seed=seed,
    )


def distorted(image, seed):
    """The picture warped by a grid, or now and then only seen once more by a noisy sensor.

    The network's own mask of it becomes the prior of the picture as it is.
    """
    warp = A.GridDistortion(num_steps=5, distort_limit=0.35, p=0.75)
    noise = A.GaussNoise(std_range=(0.01, 0.03), p=1.0)
    return A.Compose([warp, noise], seed=seed)(image=image)["image"]
