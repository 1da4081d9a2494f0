"""How well one of several persons is kept: `python -m training.several`.

Of each val picture whose drawn mask has two or more parts that touch nowhere, each at least a fiftieth of the picture:
the IoU of the whole mask, and of what `people=largest` keeps, with the part that it fits best; for those pictures in
whose mask the people are apart too, and for the others, where they are one and all stay. Then two portraits of val
cut out by their masks, the smaller of which walks behind the larger and out again, on a room of the folder, in so many
sequences of 90 frames: the same IoU frame by frame, and how often it falls by more than a tenth from one to the next.
"""

import argparse
from fractions import Fraction

import cv2
import numpy as np

from portrait.core.compositors import Options, open_compositor
from portrait.core.pipeline import Pipeline
from portrait.core.segmenters import choose_models
from portrait.image.convert import frame_from_bgr
from portrait.image.frame import Timestamp
from portrait.metrics import Metrics
from portrait.settings import Settings
from training.data import Portraits, add_option
from training.metrics import iou

LEAST = 0.02
SIZE = (480, 360)
FRAMES = 90


def parts(mask):
    """The parts of a drawn mask that are large enough, the largest first: (H,W) bool each."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((mask > 127).astype(np.uint8))
    found = [n for n in range(1, count) if stats[n, cv2.CC_STAT_AREA] >= LEAST * mask.size]
    return [labels == n for n in sorted(found, key=lambda n: -stats[n, cv2.CC_STAT_AREA])]


class Stream:
    """A pipeline's masks at the picture's size, (H,W) bool, of RGB pictures a thirtieth of a second apart."""

    def __init__(self, model, people):
        self._options = Options("mask", people=people)
        self._compositor = open_compositor(self._options)
        self._pipeline = Pipeline(model.open(), (model.width, model.height), Metrics())
        self._count = 0

    def __call__(self, picture):
        """The mask of the next frame."""
        self._count += 1
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        frame = frame_from_bgr(bgr, Timestamp(self._count, Fraction(1, 30)), self._count / 30)
        result = self._pipeline.run(frame, self._options, self._compositor)
        return cv2.resize(result.mask.values, picture.shape[1::-1]) > 127

    def close(self):
        """Free the network."""
        self._pipeline.close()


def stills(model, portraits):
    """([(IoU of everybody, IoU of the largest)] where the mask has the people apart, the same where they are one)."""
    apart, together = [], []
    for picture, mask in portraits:
        several = parts(mask)
        if len(several) > 1:
            masks = []
            for people in ("all", "largest"):
                stream = Stream(model, people)
                masks.append(stream(picture))
                stream.close()
            kept = np.count_nonzero(masks[1]) < (1 - LEAST) * np.count_nonzero(masks[0])
            (apart if kept else together).append([max(iou(part, made) for part in several) for made in masks])
    return apart, together


def sequence(first, second, room):
    """Frames (picture, mask of the larger person): `second` walks behind `first` and out again."""
    width, height = SIZE
    room = cv2.resize(room, SIZE)
    tall = [round(0.8 * height), round(0.55 * height)]
    cut = []
    for (picture, mask), rows in zip((first, second), tall, strict=True):
        size = round(picture.shape[1] * rows / picture.shape[0]), rows
        cut.append((cv2.resize(picture, size), cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) > 127))
    for number in range(FRAMES):
        shown, masks = room.copy(), []
        apart = abs(number - FRAMES / 2) / (FRAMES / 2)
        for (picture, mask), left in ((cut[1], width * (0.25 + 0.4 * apart)), (cut[0], 0.02 * width)):
            rows, columns = mask.shape
            start = round(left)
            columns = min(columns, width - start)
            place = np.s_[height - rows :, start : start + columns]
            shown[place][mask[:, :columns]] = picture[:, :columns][mask[:, :columns]]
            whole = np.zeros((height, width), bool)
            whole[place] = mask[:, :columns]
            masks.append(whole)
        yield shown, masks[1]


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_option(parser)
    parser.add_argument("--sequences", type=int, default=8)
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    portraits = Portraits(asked.data, "val")
    model = choose_models(Settings()).pick(None)
    counted = stills(model, (portraits[i] for i in range(len(portraits))))
    for pairs, words in zip(counted, ("apart", "one"), strict=True):
        everybody, largest = 100 * np.mean(pairs, axis=0)
        print(f"{len(pairs)} pictures, people {words} in the mask: IoU {everybody:.1f} %, one kept {largest:.1f} %")
    selfies = [portraits[i] for i in range(len(portraits)) if portraits.part(i) == "self"]
    rooms = sorted((asked.data / "backgrounds").glob("*.jpg"))
    for people in ("all", "largest") if asked.sequences else ():
        ious, falls = [], 0
        for number in range(asked.sequences):
            room = cv2.cvtColor(cv2.imread(str(rooms[number])), cv2.COLOR_BGR2RGB)
            stream, before = Stream(model, people), None
            for picture, mask in sequence(selfies[2 * number], selfies[2 * number + 1], room):
                ious.append(iou(mask, stream(picture)))
                falls += before is not None and ious[-1] < before - 0.1
                before = ious[-1]
            stream.close()
        print(f"{asked.sequences} sequences, people={people}: IoU {100 * np.mean(ious):.1f} %, {falls} falls")


if __name__ == "__main__":
    main()
