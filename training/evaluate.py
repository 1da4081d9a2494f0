"""How good the masks of TFLite files are on the val split, with an empty prior.

    python -m training.evaluate service/portrait/models/portrait.tflite [MORE.tflite ...] [--json FILE]

`--still` measures them as the service answers stills: several looks (`core/segmenters/stills.py`), the contour on the
picture's edges. `python -m training.evaluate max --still` measures the model `max` where it has been fetched.

A picture is squeezed to the network's size, its probability resized back (bilinear) and cut at 0.5, at the picture's
own size. "portrait" is every picture of the parts self, street and face; "wild" all the others. Besides the files of
this project it takes any with one image in 0..1 and one mask out, MediaPipe's for instance.
"""

import argparse
import json
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter

from portrait.core.segmenters import choose_models, open_model
from portrait.core.segmenters.stills import StillModel
from portrait.settings import load_settings
from training import metrics, served
from training.data import PORTRAIT_PARTS, Portraits, add_option

MARKS = (90, 80)
"""IoU, in per cent, below which a picture is counted as failed more or less."""


@dataclass(frozen=True)
class Scores:
    """What one picture's mask scored."""

    part: str
    iou: float
    boundary_f: float
    confusion: np.ndarray
    seconds: float = 0.0
    """Of this thread's CPU time, for the mask."""


def evaluate(segment, portraits):
    """Scores of every picture; `segment` takes (H,W,3) uint8 RGB and returns (h,w) float32 in 0..1."""
    found = []
    for index in range(len(portraits)):
        image, mask = portraits[index]
        started = time.thread_time()
        made = segment(image)
        seconds = time.thread_time() - started
        probability = cv2.resize(made, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
        truth, predicted = mask > 127, probability > 0.5
        pair = metrics.iou(truth, predicted), metrics.boundary_f(truth, predicted)
        found.append(Scores(portraits.part(index), *pair, metrics.confusion(truth, predicted), seconds))
    return found


def groups(scores):
    """{"portrait": ..., "wild": ..., part: ...}: the scores of every group, the portrait parts first."""
    parts = defaultdict(list)
    for score in scores:
        parts["portrait" if score.part in PORTRAIT_PARTS else "wild"].append(score)
    for score in sorted(scores, key=lambda score: (score.part not in PORTRAIT_PARTS, score.part)):
        parts[score.part].append(score)
    return {name: parts[name] for name in ("portrait", "wild", *parts) if parts[name]}


def summary(scores):
    """{group: {pictures, iou, low, high, p5, miou, boundary_f, below_...}}: per cent.

    `low` and `high` bound the mean IoU; `below_90` is the share of pictures with less than 90 %.
    """
    found = {}
    for name, members in groups(scores).items():
        values = [score.iou for score in members]
        low, high = metrics.bootstrap(values)
        figures = {"iou": np.mean(values), "low": low, "high": high, "p5": np.percentile(values, 5)}
        figures["miou"] = metrics.pooled_miou(sum(score.confusion for score in members))
        figures["boundary_f"] = np.mean([score.boundary_f for score in members])
        figures |= {f"below_{mark}": np.mean([value < mark / 100 for value in values]) for mark in MARKS}
        found[name] = {"pictures": len(members)} | {key: round(100 * float(v), 2) for key, v in figures.items()}
    return found


def network_segment(network, height, width):
    """`segment` by a network of `training.model` with an empty prior."""
    device = next(network.parameters()).device

    @torch.no_grad()
    def segment(image):
        network.eval()
        inputs = [torch.from_numpy(to_input(image, height, width)).permute(0, 3, 1, 2).to(device)]
        if network.takes_prior:
            inputs.append(torch.zeros(1, 1, height, width, device=device))
        return torch.sigmoid(network(*inputs))[0, 0].cpu().numpy()

    return segment


def still(model, once=False):
    """`segment` of a file, or of the model of that name, as the service answers stills."""
    if Path(model).suffix:
        opened = open_model(Path(model))
        return served.Still(opened if once else StillModel(opened))
    return served.Still(choose_models(load_settings({"model": model})).pick_still(None))


class File:
    """A TFLite file on one thread: image (H,W,3) uint8 RGB and prior in, mask (h,w) out.

    Raises ValueError with the path of what is no such file.
    """

    def __init__(self, path):
        try:
            self._interpreter = Interpreter(str(path), num_threads=1)
        except ValueError as error:  # the interpreter's own words do not always say which file
            raise ValueError(f"{path}: {error}; expected is a TFLite file") from error
        self._interpreter.allocate_tensors()
        inputs = self._interpreter.get_input_details()
        by_channels = {int(tensor["shape"][-1]): tensor for tensor in inputs if len(tensor["shape"]) == 4}
        if 3 not in by_channels:
            shapes = [tensor["shape"].tolist() for tensor in inputs]
            raise ValueError(f"{path} takes inputs of {shapes}; expected are (1,H,W,3) and, for a prior, (1,H,W,1)")
        self._image, self._prior = by_channels[3], by_channels.get(1)
        (self._mask,) = self._interpreter.get_output_details()
        self.height, self.width = (int(side) for side in self._image["shape"][1:3])
        self.takes_prior = self._prior is not None
        self.shapes = [[int(side) for side in tensor["shape"]] for tensor in by_channels.values()]

    def __call__(self, image, prior=None):
        """(h,w) float32 in 0..1; a prior is (h,w) of the same kind, None an empty one."""
        self._interpreter.set_tensor(self._image["index"], to_input(image, self.height, self.width))
        if self._prior is not None:
            empty = np.zeros(self._prior["shape"], np.float32)
            self._interpreter.set_tensor(self._prior["index"], empty if prior is None else prior[None, ..., None])
        self.invoke()
        return self._interpreter.get_tensor(self._mask["index"])[0, ..., 0]

    def invoke(self):
        """Run the network once more on what it was given last."""
        self._interpreter.invoke()


def to_input(image, height, width):
    """(1,height,width,3) float32 in 0..1 of a uint8 RGB picture, resized as the service resizes frames."""
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)[None].astype(np.float32) / 255.0


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="TFLite files; with --still also names, such as max")
    looks = "as the service answers stills: several looks (default), or once, as for a model that is named"
    parser.add_argument("--still", nargs="?", const="several", choices=("several", "once"), help=looks)
    add_option(parser)
    parser.add_argument("--split", default="val", help="train or val (default)")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    portraits = Portraits(arguments.data, arguments.split)
    found = {}
    for path in arguments.models:
        segment = still(path, arguments.still == "once") if arguments.still else File(path)
        scores = evaluate(segment, portraits)
        rows = found[path] = summary(scores)
        print(f"{1000 * np.median([score.seconds for score in scores]):.2f} ms of CPU per picture (median)")
        print(f"{path}\n{'':<10}{'pictures':>9}{'IoU %':>8}  {'95 % interval':<16}{'p5 %':>7}{'mIoU %':>8}{'F %':>8}")
        for name, row in rows.items():
            interval = f"{row['low']:.2f} .. {row['high']:.2f}"
            figures = f"{row['p5']:>7.2f}{row['miou']:>8.2f}{row['boundary_f']:>8.2f}"
            print(f"{name:<10}{row['pictures']:>9}{row['iou']:>8.2f}  {interval:<16}{figures}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
