"""The four kinds of prior the network is trained with (paper, section III.B).

The paper's shares (40 % empty, 35 % small, 5 % major, 30 % self-prediction) sum to 110 %. Here the first two give up
five points each: the paper calls self-prediction the one "without which mask propagation doesn't train correctly at
all" and the major share is already small.
"""

import albumentations as A
import cv2
import numpy as np

EMPTY, SMALL, MAJOR, SELF = 0.35, 0.30, 0.05, 0.30


def choose(rng, count):
    """Kinds for a batch of `count`: exactly round(0.30 * count) are "self", the others drawn by their shares.

    A fixed number keeps the shape of the self-prediction batch constant, so that its graph is traced once.
    """
    own = round(SELF * count)
    shares = np.array([EMPTY, SMALL, MAJOR])
    rest = rng.choice(["empty", "small", "major"], size=count - own, p=shares / shares.sum())
    return rng.permutation(np.concatenate([rest, np.full(own, "self")]))


def from_truth(kind, mask, rng):
    """A prior (H,W) uint8 made of the true mask: "empty", "small" or "major". For "self" see `distorted`."""
    if kind == "empty":
        return np.zeros_like(mask)
    transform = {"small": small, "major": major}[kind](int(rng.integers(2**31)))
    return transform(image=mask)["image"]


def small(seed):
    """Camera and head movement of one frame: a few per cent of shift, scale and rotation, or an elastic warp, or both."""
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
    """The picture warped by a grid; the network's own mask of it becomes the prior of the picture as it is."""
    return A.Compose([A.GridDistortion(num_steps=5, distort_limit=0.25, p=1.0)], seed=seed)(image=image)["image"]
