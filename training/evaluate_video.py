"""How steady a model is, and how well it lets go: `python -m training.evaluate_video MODEL.tflite [MODEL.tflite ...]`.

Sequences with exact masks: val selfies, cut out, moved sideways over the rooms that training keeps out, with
sensor noise.

slow, fast      mean IoU of 16 frames, the model fed its own masks, swaying by 2 % and by 15 % of the width
ghost 1, 2, 3   pixels still called person 1, 2, 3 frames after a cut to the empty room, as a share of the person
empty           the same without any prior: what the model takes for a person where nobody is
flips           pixels per 10,000 that change sides from frame to frame while only the noise moves
"""

import argparse
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from training import evaluate
from training.data import Portraits

SIZE = (320, 240)
FRAMES = 16
NOISE = 3.0


class Stream:
    """A TFLite file fed its own masks."""

    def __init__(self, path):
        self._run = evaluate.tflite_runner(path)
        self._prior = None

    def __call__(self, image):
        """(240,320) boolean: where the person is."""
        probability, self._prior = self._run(image, self._prior)
        return cv2.resize(probability, SIZE, interpolation=cv2.INTER_LINEAR) > 0.5


def sequence(image, mask, room, sway, rng):
    """Frames (H,W,3) uint8 and masks (H,W) boolean of a person swaying by `sway` of the width before a room."""
    width, height = SIZE
    scaled = round(image.shape[1] * height / image.shape[0]), height
    image, mask = cv2.resize(image, scaled), cv2.resize(mask, scaled, interpolation=cv2.INTER_NEAREST)
    for i in range(FRAMES):
        x = (width - scaled[0]) / 2 + sway * width * np.sin(2 * np.pi * i / FRAMES)
        shift = np.float32([[1, 0, x], [0, 1, 0]])
        moved = cv2.warpAffine(image, shift, SIZE, borderMode=cv2.BORDER_REPLICATE)
        truth = cv2.warpAffine(mask, shift, SIZE, flags=cv2.INTER_NEAREST)
        alpha = cv2.GaussianBlur(truth, (3, 3), 0)[..., None].astype(np.float32) / 255.0
        yield noisy(moved * alpha + room * (1.0 - alpha), rng), truth > 127


def noisy(picture, rng):
    """The picture as a sensor sees it once more."""
    return np.clip(picture + rng.normal(0.0, NOISE, picture.shape), 0, 255).astype(np.uint8)


def measure(path, people, rooms):
    """{figure: value} of one model over pairs of people and rooms."""
    found = {name: [] for name in ("slow", "fast", "ghost 1", "ghost 2", "ghost 3", "empty", "flips")}
    for number, ((image, mask), room) in enumerate(zip(people, rooms, strict=True)):
        rng = np.random.default_rng(number)
        for name, sway in (("slow", 0.02), ("fast", 0.15)):
            stream = Stream(path)
            for frame, truth in sequence(image, mask, room, sway, rng):
                seen = stream(frame)
                found[name].append(evaluate.iou(truth, seen))
            person = max(1, np.count_nonzero(seen))
            for after in (1, 2, 3):
                found[f"ghost {after}"].append(np.count_nonzero(stream(noisy(room, rng))) / person)
            found["empty"].append(np.count_nonzero(Stream(path)(noisy(room, rng))) / person)
        stream = Stream(path)
        still = [stream(noisy(frame, rng)) for _ in range(FRAMES)]
        # The first frames build the prior up and are no flicker.
        found["flips"] += [1e4 * np.mean(a != b) for a, b in pairwise(still[3:])]
    return {name: float(np.mean(values)) for name, values in found.items()}


def load(data, count=32):
    """(people, rooms): val selfies as (image, mask), and the backgrounds kept from training, at SIZE."""
    val = Portraits(data, "val")
    people = [val[i] for i in range(len(val)) if val.part(i) == "self"][:count]
    paths = sorted((Path(data) / "backgrounds").glob("*.jpg"))[::10][: len(people)]
    rooms = [cv2.resize(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), SIZE) for path in paths]
    return people[: len(rooms)], rooms


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/portraits"))
    arguments = parser.parse_args()
    people, rooms = load(arguments.data)
    for path in arguments.models:
        figures = measure(path, people, rooms)
        shares = " ".join(f"{name} {100 * value:.1f} %" for name, value in figures.items() if name != "flips")
        print(f"{path}: {shares} flips {figures['flips']:.1f}")


if __name__ == "__main__":
    main()
