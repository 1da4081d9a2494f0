"""Pictures, masks, labels and batches.

A data folder holds `images/NAME.jpg`, `masks/NAME.png` (0 or 255) and `index.csv` with `name,split` (train or val),
and, optionally, `backgrounds/` with pictures of places without people. The part of `self_0001` is "self".
docs/develop/training.md says more.
"""

import csv
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from training import augment, losses, priors
from training import label as labels

PORTRAIT_PARTS = ("self", "street", "face")


def add_option(parser):
    """`--data FOLDER`, for every command that reads pictures."""
    default = Path("../shared/data/portraits")
    parser.add_argument("--data", type=Path, default=default, metavar="FOLDER", help=f"of pictures (default {default})")


class Batch(NamedTuple):
    """One step's tensors, uint8: image (N,H,W,3); prior, label and the band of its contour (N,H,W).

    `own` (N) says whose prior is still to be predicted, `distorted` (own.sum(),H,W,3) are the pictures to do it on.
    """

    image: torch.Tensor
    prior: torch.Tensor
    label: torch.Tensor
    band: torch.Tensor
    own: torch.Tensor
    distorted: torch.Tensor


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
        check_mask(self.names[index], image, mask)
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


def read_rooms(folder):
    """The JPEG files of a folder as bytes. Raises FileNotFoundError where there are none."""
    paths = sorted(Path(folder).glob("*.jpg"))
    if not paths:
        raise FileNotFoundError(f"there is no .jpg file in {folder}; expected are pictures of rooms without people")
    return [path.read_bytes() for path in paths]


def rooms_beside(pictures, narrowest=0.3, least=64):
    """What of `Pictures` lies beside the people, as JPEG bytes: a room for those who may use no other pictures.

    Of each the widest upright strip without a person, if it is at least `narrowest` of the picture and `least` pixels
    wide; at most half as high again as wide, from a height that differs from picture to picture.
    """
    found = []
    for index in range(len(pictures)):
        image, label = augment.apart(pictures[index])
        free = np.flatnonzero(np.diff(np.concatenate([[0], label.max(axis=0) < 26, [0]])))
        left, right = max(free.reshape(-1, 2).tolist(), key=lambda run: run[1] - run[0], default=(0, 0))
        width, height = right - left, len(label)
        if width < max(least, narrowest * label.shape[1]):
            continue
        used = min(height, 3 * width // 2)
        top = index % (height - used + 1)
        strip = np.ascontiguousarray(image[top : top + used, left:right, ::-1])
        found.append(cv2.imencode(".jpg", strip, (cv2.IMWRITE_JPEG_QUALITY, 92))[1].tobytes())
    return found


AGREED = 0.75
"""IoU of the given mask and the teachers' from which they mean the same people: the teachers' soft mask is taken."""

TRUSTED = 0.8
"""IoU of two teachers from which their mask is good enough where none is given."""


OPEN = (
    "Apache-2.0",
    "MIT (repository)",
    "CC BY 4.0 (as stated)",
    "CC BY 4.0 (as stated, Roboflow human-dataset-v2)",
    "repository: none stated; Unsplash photos (Unsplash licence)",
)
"""The terms in `index.csv` that allow commercial use, as their sources state them."""


class Pictures:
    """Every picture that is learned from, decoded once into one file that all workers map into their memory.

    `folders` are data folders, or like them: of each the rows of the split `train`, or all where it has no splits. With
    `taught`, a folder of `training.label`, a picture's label is the teachers' mask; the given mask where there are no
    teachers or they mean other people (`AGREED`). Pictures without either, or on which teachers disagree, are left out,
    and with `licences` those whose column `licence` names none of them.
    """

    def __init__(self, folders, taught=None, licences=()):
        self.names, self._places = [], []
        end = 0
        # Without a name: it is gone when the last map of it is.
        with tempfile.TemporaryFile() as file:
            for folder in map(Path, folders):
                lines = labels.labelled(taught / folder.resolve().name) if taught else {}
                for name, path in labels.find(folder, licences).items():
                    picture = _whole(folder, taught, name, path, lines)
                    if picture is None:
                        continue
                    file.write(picture.tobytes())
                    self.names.append(name)
                    self._places.append((end, picture.shape))
                    end += picture.size
            if not self.names:
                raise ValueError(f"there is no picture to learn from in {', '.join(map(str, folders))}")
            file.flush()
            self._bytes = np.memmap(file, np.uint8, "r")

    def __len__(self):
        return len(self.names)

    def part(self, index):
        """The source a picture came from: the prefix of its name."""
        return self.names[index].split("_")[0]

    def __getitem__(self, index):
        """(H,W,4) uint8: the picture's RGB, and its label as the last channel."""
        start, shape = self._places[index]
        return self._bytes[start : start + shape[0] * shape[1] * 4].reshape(shape)


def _whole(folder, taught, name, path, lines):
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    given = _given(folder, name)
    for what, picture in (("image", image), ("mask", given)):
        if picture is None and not (what == "mask" and not (folder / "masks" / f"{name}.png").exists()):
            raise ValueError(f"{name}: the {what} cannot be read; expected is a JPEG, and a PNG of its mask")
    if given is not None:
        check_mask(name, image, given)
    soft = None
    if name in lines:
        place = taught / folder.resolve().name
        masks = [
            cv2.imread(str(place / teacher / f"{name}.png"), cv2.IMREAD_GRAYSCALE).astype(np.float32)
            for teacher in ("multiclass", "general")
        ]
        soft = cv2.resize(labels.mixed(*masks), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        soft = (soft + 0.5).astype(np.uint8)
    chosen = choose_label(given, soft, float(lines[name]["agreement"]) if name in lines else 0.0)
    return None if chosen is None else augment.together(image, chosen)


def choose_label(given, taught, agreement):
    """The label of a picture with a given mask or none, and the teachers' soft one or none; None if neither is good.

    `agreement` is the IoU of the teachers with each other.
    """
    if taught is None:
        return given
    if given is None:
        return taught if agreement >= TRUSTED else None
    a, b = given > 127, taught > 127
    return taught if np.count_nonzero(a & b) >= AGREED * np.count_nonzero(a | b) else given


def _given(folder, name):
    path = folder / "masks" / f"{name}.png"
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.exists() else None


def check_mask(name, image, mask):
    """ValueError for a mask of another size than its picture, or of other values than 0 and 255."""
    sizes = [None if picture is None else picture.shape[:2] for picture in (image, mask)]
    if None in sizes or sizes[0] != sizes[1]:
        came = f"got an image of {sizes[0]} and a mask of {sizes[1]}"
        raise ValueError(f"{name}: {came}; expected two that can be read, of one size")
    # Masks of 0 and 1 are common, and would teach that no person is ever there.
    if 0 < (most := mask.max()) < 128:
        raise ValueError(f"{name}: the mask's highest value is {most}; expected 0 and 255")


@dataclass(frozen=True)
class Mix:
    """What the pictures of a training are made of."""

    weights: dict[str, float] = field(default_factory=lambda: {"other": 1.0})
    """How often a picture of a part is drawn, relative to the others."""
    shares: dict[str, float] = field(default_factory=lambda: priors.PAPER)
    """How often each kind of prior is shown."""
    strength: augment.Strength = augment.PAPER
    paste: float = 0.0
    """Share of pictures whose person is pasted onto another background."""
    beside: float = 0.0
    """Share of pictures that get a second person, in front of the first."""
    empty: float = 0.0
    """Share of pictures that are rooms without people, whatever the prior says."""


class Batches(torch.utils.data.Dataset):
    """Augmented batches by number; batch `number` of a seed is the same whenever and wherever it is made."""

    def __init__(self, pictures, backgrounds, mix, *, batch, size, seed):
        self._pictures, self._backgrounds, self._mix = pictures, backgrounds, mix
        self._batch, self._size, self._seed = batch, size, seed
        chances = np.array([mix.weights.get(pictures.part(i), mix.weights["other"]) for i in range(len(pictures))])
        self._chances = np.cumsum(chances) / chances.sum()

    def __getitem__(self, number):
        """A `Batch`."""
        rng = np.random.default_rng((self._seed, number))
        kinds = priors.choose(rng, self._batch, self._mix.shares)
        images, found, previous, distorted = [], [], [], []
        for kind in kinds:
            image, label = self._sample(rng)
            images.append(image)
            found.append(label)
            if kind == "self":
                distorted.append(priors.distorted(image, rng))
                previous.append(np.zeros_like(label))
            else:
                other = found[rng.integers(len(found) - 1)] if len(found) > 1 else np.zeros_like(label)
                previous.append(priors.from_truth(kind, label, other, rng))
        return Batch(
            image=_stacked(images),
            prior=_stacked(previous),
            label=_stacked(found),
            band=_stacked([losses.boundary(label) for label in found]),
            own=torch.from_numpy(kinds == "self"),
            distorted=_stacked(distorted) if distorted else torch.zeros((0, *self._size, 3), dtype=torch.uint8),
        )

    def _sample(self, rng):
        """A portrait as it is, before another background, with a person beside, or a room without people."""
        strength, choice = self._mix.strength, rng.random()
        if self._backgrounds and choice < self._mix.empty:
            image, label = self._room(rng)
        else:
            image, label = self._warped(rng)
            if self._backgrounds and choice < self._mix.empty + self._mix.paste:
                image = over(image, label, self._room(rng)[0])
            if rng.random() < self._mix.beside:
                second, shape = beside(*self._warped(rng), rng)
                image, label = over(second, shape, image), np.maximum(label, shape)
        return augment.call(augment.light(image, rng, strength), rng, strength), label

    def _warped(self, rng):
        picture = self._pictures[int(np.searchsorted(self._chances, rng.random(), side="right"))]
        # Half of the noise and compression before the picture gets smaller, as in a camera; half after.
        if rng.random() < 0.5 and self._mix.strength.call:
            image, label = augment.apart(picture)
            picture = augment.together(augment.call(image, rng, self._mix.strength), label)
        return augment.warp(picture, rng, *self._size, self._mix.strength)

    def _room(self, rng):
        data = self._backgrounds[rng.integers(len(self._backgrounds))]
        room = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        nobody = np.zeros(room.shape[:2], np.uint8)
        return augment.warp(augment.together(room, nobody), rng, *self._size, self._mix.strength)


def over(image, label, background):
    """The person of `label` (H,W), soft or not, before `background`."""
    front = label.astype(np.float32) / 255.0
    return cv2.blendLinear(image, background, front, 1.0 - front)


def beside(image, label, rng):
    """A sample moved up to half a width to a side, at 0.5 to 1 times its size, on the picture's base."""
    height, width = label.shape
    scale = rng.uniform(0.5, 1.0)
    x = width / 2 + rng.uniform(-0.5, 0.5) * width - scale * width / 2
    matrix = np.float32([[scale, 0, x], [0, scale, height - scale * height]])
    return cv2.warpAffine(image, matrix, (width, height)), cv2.warpAffine(label, matrix, (width, height))


def pasted(image, mask, background):
    """The person of `mask` (H,W) before `background`, with an edge one pixel soft."""
    return cv2.blendLinear(
        image, background, *(cv2.GaussianBlur(m, (3, 3), 0).astype(np.float32) / 255.0 for m in (mask, 255 - mask))
    )


def _stacked(pictures):
    return torch.from_numpy(np.stack(pictures))
