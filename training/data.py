"""Pictures, masks, augmentation and batches.

A data folder holds `images/NAME.jpg`, `masks/NAME.png` (0 or 255) and `index.csv` with `name,split` (train or val),
and, optionally, `backgrounds/` with pictures of places without people. The part of `self_0001` is "self".
docs/develop/training.md says more.
"""

import csv
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import albumentations as A
import cv2
import numpy as np

from training import losses, priors

PORTRAIT_PARTS = ("self", "street", "face")


def add_option(parser):
    """`--data FOLDER`, for every command that reads pictures."""
    default = Path("../shared/data/portraits")
    parser.add_argument("--data", type=Path, default=default, metavar="FOLDER", help=f"of pictures (default {default})")


@dataclass(frozen=True)
class Batch:
    """One step's arrays, float32 in 0..1: image (N,H,W,3), prior, mask, its contour's band, label (N,H,W,1).

    `label` is the mask, softened by the teacher where there is one. `own` are the indices whose prior is still to be
    predicted, `distorted` (len(own),H,W,3) the pictures to do it on.
    """

    image: np.ndarray
    prior: np.ndarray
    mask: np.ndarray
    band: np.ndarray
    label: np.ndarray
    own: np.ndarray
    distorted: np.ndarray


class Portraits:
    """Pictures of one split, held as compressed bytes and decoded when asked for.

    `rows` are their lines of `index.csv`. Raises FileNotFoundError and ValueError for what is not a data folder.
    """

    def __init__(self, folder, split):
        folder = Path(folder)
        self.rows = [row for row in _index(folder) if row["split"] == split]
        if not self.rows:
            raise ValueError(f"{folder / 'index.csv'} lists no picture of the split {split!r}")
        self.names = [row["name"] for row in self.rows]
        self._images = [(folder / "images" / f"{name}.jpg").read_bytes() for name in self.names]
        self._masks = [(folder / "masks" / f"{name}.png").read_bytes() for name in self.names]

    def __len__(self):
        return len(self.names)

    def part(self, index):
        """The source a picture came from: the prefix of its name."""
        return self.names[index].split("_")[0]

    def __getitem__(self, index):
        """(image (H,W,3) uint8 RGB, mask (H,W) uint8 0 or 255). Raises ValueError with the name of a bad one."""
        image = cv2.imdecode(np.frombuffer(self._images[index], np.uint8), cv2.IMREAD_COLOR_RGB)
        mask = cv2.imdecode(np.frombuffer(self._masks[index], np.uint8), cv2.IMREAD_GRAYSCALE)
        sizes = [None if picture is None else picture.shape[:2] for picture in (image, mask)]
        if None in sizes or sizes[0] != sizes[1]:
            came = f"an image of {sizes[0]} and a mask of {sizes[1]} came"
            raise ValueError(f"{self.names[index]}: {came}; expected are two that can be read, of one size")
        # Masks of 0 and 1 are common, and would teach that nobody is ever there.
        if 0 < (most := mask.max()) < 128:
            raise ValueError(f"{self.names[index]}: the mask's highest value is {most}; expected are 0 and 255")
        return image, mask


def _index(folder):
    path = folder / "index.csv"
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; expected is a folder with index.csv, images/ and masks/")
    with open(path, newline="") as file:
        lines = csv.DictReader(file)
        columns = lines.fieldnames or []
        if not {"name", "split"} <= set(columns):
            raise ValueError(f"{path} has the columns {', '.join(columns)}; expected are at least name and split")
        return list(lines)


def load_backgrounds(folder):
    """The pictures of `folder`/backgrounds as JPEG bytes, less every tenth, which is kept for measuring.

    An empty list where there is no such folder.
    """
    paths = sorted((Path(folder) / "backgrounds").glob("*.jpg"))
    return [path.read_bytes() for i, path in enumerate(paths) if i % 10]


def augmentation(height, width, webcam, seed, strength=1.0):
    """The paper's augmentations at (height, width); with `webcam` also what a video call does to a picture.

    `strength` is how far the geometry goes, 1 being the paper's. The picture is squeezed to the network's shape as the
    service squeezes a frame, hence the independent scales. Masks are interpolated: an edge that falls between two
    pixels belongs to both in part.
    """
    geometry = [
        A.HorizontalFlip(p=0.5),
        A.Affine(
            scale=dict.fromkeys(("x", "y"), (1 - 0.2 * strength, 1 + 0.5 * strength)),
            translate_percent=(-0.15 * strength, 0.15 * strength),
            rotate=(-20 * strength, 20 * strength),
            mask_interpolation=cv2.INTER_LINEAR,
            p=0.9,
        ),
        A.Resize(height, width, mask_interpolation=cv2.INTER_LINEAR),
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


@dataclass(frozen=True)
class Mix:
    """What the pictures of a training are made of."""

    weights: dict[str, float] = field(default_factory=lambda: {"other": 1.0})
    """How often a picture of a part is drawn, relative to the others."""
    shares: dict[str, float] = field(default_factory=lambda: priors.PAPER)
    """How often each kind of prior is shown."""
    paste: float = 0.0
    """Share of pictures whose person is pasted onto another background."""
    beside: float = 0.0
    """Share of pictures that get a second person, in front of the first."""
    empty: float = 0.0
    """Share of pictures that are rooms without anybody: nobody in them, whatever the prior says."""
    webcam: bool = False
    """Noise, compression, colour cast and low resolution on top of the paper's augmentations."""
    taught: dict[str, float] = field(default_factory=dict)
    """The teacher's share in the labels of a part's pictures; the given masks have the rest, and all of other parts."""


class Batches:
    """An endless supply of augmented batches; batch (epoch, step) is the same whenever and wherever it is made.

    `teacher` takes a picture (H,W,3) uint8 RGB and returns (H,W) in 0..1; it is asked where the mix wants it.
    """

    def __init__(self, portraits, backgrounds, mix, *, batch, steps, seed, teacher=None):
        if mix.taught and teacher is None:
            raise ValueError(f"the mix has labels of {sorted(mix.taught)} softened by a teacher, but there is none")
        self._portraits, self._backgrounds, self._mix, self._teacher = portraits, backgrounds, mix, teacher
        self._batch, self.steps, self._seed = batch, steps, seed
        weights = mix.weights
        chances = np.array([weights.get(portraits.part(i), weights["other"]) for i in range(len(portraits))], float)
        self._chances = chances / chances.sum()

    def epoch(self, epoch, size, strength=1.0, workers=2, ahead=6):
        """The batches of one epoch in order, made by `workers` threads at most `ahead` batches early."""
        with ThreadPoolExecutor(workers) as pool:
            pending = deque()
            for step in range(self.steps):
                pending.append(pool.submit(self.make, epoch, step, size, strength))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    def make(self, epoch, step, size, strength=1.0):
        """Batch `step` of `epoch` at `size` (height, width), augmented with `strength`."""
        rng = np.random.default_rng((self._seed, epoch, step))
        augment = augmentation(*size, self._mix.webcam, int(rng.integers(2**31)), strength)
        kinds = priors.choose(rng, self._batch, self._mix.shares)
        images, masks, labels, previous, distorted = [], [], [], [], []
        for kind in kinds:
            index = rng.choice(len(self._portraits), p=self._chances)
            image, mask = self._picture(index, rng)
            sample = augment(image=image, mask=mask)
            images.append(sample["image"])
            masks.append(sample["mask"])
            labels.append(self._label(index, sample["image"], sample["mask"]))
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
            band=_unit([losses.boundary(mask) for mask in masks])[..., None],
            label=np.stack(labels)[..., None],
            own=np.flatnonzero(kinds == "self"),
            distorted=_unit(distorted) if distorted else np.zeros((0, *size, 3), np.float32),
        )

    def _label(self, index, image, mask):
        given = mask.astype(np.float32) / 255.0
        share = self._mix.taught.get(self._portraits.part(index), 0.0)
        # What is known to be empty needs no opinion.
        return (1 - share) * given + share * self._teacher(image) if share and mask.any() else given

    def _picture(self, index, rng):
        """A portrait as it is, before another background, with somebody beside, or a room without anybody."""
        image, mask = self._portraits[index]
        if self._backgrounds:
            choice = rng.random()
            if choice < self._mix.empty:
                return self._room(image.shape, rng), np.zeros_like(mask)
            if choice < self._mix.empty + self._mix.paste:
                image = pasted(image, mask, self._room(image.shape, rng))
        if rng.random() < self._mix.beside:
            second = self._portraits[rng.choice(len(self._portraits), p=self._chances)]
            other, shape = moved(*second, mask.shape, rng)
            image, mask = pasted(other, shape, image), np.maximum(mask, shape)
        return image, mask

    def _room(self, shape, rng):
        data = self._backgrounds[rng.integers(len(self._backgrounds))]
        room = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        return cv2.resize(room, (shape[1], shape[0]))


def pasted(image, mask, background):
    """The person of `mask` (H,W) before `background`, with an edge one pixel soft."""
    return cv2.blendLinear(
        image, background, *(cv2.GaussianBlur(m, (3, 3), 0).astype(np.float32) / 255.0 for m in (mask, 255 - mask))
    )


def moved(image, mask, shape, rng):
    """A portrait on a canvas of `shape` (H,W), up to half of it away from the middle and 0.5 to 1 times its size."""
    height, width = shape
    scale = rng.uniform(0.5, 1.0) * min(height / image.shape[0], width / image.shape[1])
    x = width / 2 + rng.uniform(-0.5, 0.5) * width - scale * image.shape[1] / 2
    matrix = np.float32([[scale, 0, x], [0, scale, height - scale * image.shape[0]]])
    return cv2.warpAffine(image, matrix, (width, height)), cv2.warpAffine(mask, matrix, (width, height))


def _unit(pictures):
    return np.stack(pictures).astype(np.float32) / 255.0
