"""Pictures, masks, augmentation and batches.

A data folder holds `images/NAME.jpg`, `masks/NAME.png` (0 or 255) and `index.csv` with `name,split` (train or val),
and, optionally, `backgrounds/` with pictures of places without people. The part of `self_0001` is "self".
"""

import csv
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import albumentations as A
import cv2
import numpy as np

from training import priors

PORTRAIT_PARTS = ("self", "street", "face")


@dataclass(frozen=True)
class Batch:
    """One step's arrays, float32 in 0..1: image (N,S,S,3), prior and mask (N,S,S,1).

    `own` are the indices whose prior is still to be predicted, `distorted` (len(own),S,S,3) the pictures to do it on.
    """

    image: np.ndarray
    prior: np.ndarray
    mask: np.ndarray
    own: np.ndarray
    distorted: np.ndarray


class Portraits:
    """Pictures of one split, held as compressed bytes and decoded when asked for."""

    def __init__(self, folder, split):
        folder = Path(folder)
        with open(folder / "index.csv", newline="") as file:
            self.names = [row["name"] for row in csv.DictReader(file) if row["split"] == split]
        if not self.names:
            raise ValueError(f"{folder / 'index.csv'} lists no picture of the split {split!r}")
        self._images = [(folder / "images" / f"{name}.jpg").read_bytes() for name in self.names]
        self._masks = [(folder / "masks" / f"{name}.png").read_bytes() for name in self.names]

    def __len__(self):
        return len(self.names)

    def part(self, index):
        """The source a picture came from: the prefix of its name."""
        return self.names[index].split("_")[0]

    def __getitem__(self, index):
        """(image (H,W,3) uint8 RGB, mask (H,W) uint8 0 or 255)."""
        image = cv2.imdecode(np.frombuffer(self._images[index], np.uint8), cv2.IMREAD_COLOR_RGB)
        mask = cv2.imdecode(np.frombuffer(self._masks[index], np.uint8), cv2.IMREAD_GRAYSCALE)
        return image, mask


def load_backgrounds(folder):
    """The pictures of `folder`/backgrounds as JPEG bytes, less every tenth, which is kept for measuring.

    An empty list where there is no such folder.
    """
    paths = sorted((Path(folder) / "backgrounds").glob("*.jpg"))
    return [path.read_bytes() for i, path in enumerate(paths) if i % 10]


def augmentation(size, webcam, seed):
    """The paper's augmentations at (size, size); with `webcam` also what a video call does to a picture.

    The picture is squeezed to a square as the service squeezes a 16:9 frame, hence the independent scales.
    """
    geometry = [
        A.HorizontalFlip(p=0.5),
        A.Affine(scale={"x": (0.8, 1.5), "y": (0.8, 1.5)}, translate_percent=(-0.15, 0.15), rotate=(-20, 20), p=0.9),
        A.Resize(size, size),
    ]
    photometry = [
        A.RandomBrightnessContrast(0.3, 0.3, p=0.5),
        A.RandomGamma((60, 160), p=0.3),
        A.MotionBlur(blur_limit=(3, 9), p=0.15),
    ]
    call = [
        A.HueSaturationValue(12, 30, 0, p=0.3),
        A.Downscale(scale_range=(0.4, 0.8), p=0.1),
        A.GaussNoise(std_range=(0.02, 0.1), p=0.2),
        A.ImageCompression(quality_range=(25, 80), p=0.3),
    ]
    return A.Compose(geometry + photometry + (call if webcam else []), seed=seed)


class Batches:
    """An endless supply of augmented batches; batch (epoch, index) is the same whenever and wherever it is made."""

    def __init__(self, portraits, backgrounds, *, size, batch, steps, weights, shares, paste, empty, webcam, seed):
        self._portraits, self._backgrounds = portraits, backgrounds
        self._size, self._batch, self.steps = size, batch, steps
        self._shares = shares
        self._paste, self._empty = (paste, empty) if backgrounds else (0.0, 0.0)
        self._webcam, self._seed = webcam, seed
        chances = np.array([weights.get(portraits.part(i), weights["other"]) for i in range(len(portraits))], float)
        self._chances = chances / chances.sum()

    def epoch(self, epoch, workers=2, ahead=6):
        """The batches of one epoch in order, made by `workers` threads at most `ahead` batches early."""
        with ThreadPoolExecutor(workers) as pool:
            pending = deque()
            for step in range(self.steps):
                pending.append(pool.submit(self.make, epoch, step))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    def make(self, epoch, step):
        """Batch `step` of `epoch`."""
        rng = np.random.default_rng((self._seed, epoch, step))
        augment = augmentation(self._size, self._webcam, int(rng.integers(2**31)))
        kinds = priors.choose(rng, self._batch, self._shares)
        images, masks, previous, distorted = [], [], [], []
        for index, kind in zip(rng.choice(len(self._portraits), self._batch, p=self._chances), kinds, strict=True):
            image, mask = self._picture(index, rng)
            sample = augment(image=image, mask=mask)
            images.append(sample["image"])
            masks.append(sample["mask"])
            if kind == "self":
                distorted.append(priors.distorted(sample["image"], int(rng.integers(2**31))))
                previous.append(np.zeros_like(sample["mask"]))
            else:
                other = masks[rng.integers(len(masks) - 1)] if len(masks) > 1 else np.zeros_like(masks[0])
                previous.append(priors.from_truth(kind, sample["mask"], other, rng))
        return Batch(
            image=_unit(images),
            prior=_unit(previous)[..., None],
            mask=_unit(masks)[..., None],
            own=np.flatnonzero(kinds == "self"),
            distorted=_unit(distorted),
        )

    def _picture(self, index, rng):
        """A portrait as it is, before another background, or a room without anybody."""
        image, mask = self._portraits[index]
        choice = rng.random()
        if choice >= self._paste + self._empty:
            return image, mask
        data = self._backgrounds[rng.integers(len(self._backgrounds))]
        background = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        background = cv2.resize(background, (image.shape[1], image.shape[0]))
        if choice < self._empty:
            return background, np.zeros_like(mask)
        alpha = cv2.GaussianBlur(mask, (3, 3), 0)[..., None].astype(np.float32) / 255.0
        return (image * alpha + background * (1.0 - alpha)).astype(np.uint8), mask


def _unit(pictures):
    return np.stack(pictures).astype(np.float32) / 255.0
