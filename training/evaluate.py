"""IoU on the val split: `python -m training.evaluate MODEL.tflite --data ../shared/data/portraits`.

The mean over pictures of the foreground IoU at each picture's own size, with an empty prior: the picture is squeezed to
the network's size, its probability resized back (bilinear) and cut at 0.5. "portrait" is the mean over all pictures of
the parts self, street and face.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from training.data import PORTRAIT_PARTS, Portraits


def iou(truth, predicted):
    """|A and B| / |A or B| of two boolean masks; 1.0 where both are empty."""
    either = np.count_nonzero(truth | predicted)
    return np.count_nonzero(truth & predicted) / either if either else 1.0


def evaluate(segment, portraits):
    """{part: [IoU of every picture]}; `segment` takes (H,W,3) uint8 RGB and returns (h,w) float32 in 0..1."""
    scores = defaultdict(list)
    for index in range(len(portraits)):
        image, mask = portraits[index]
        probability = cv2.resize(segment(image), (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
        scores[portraits.part(index)].append(iou(mask > 127, probability > 0.5))
    return dict(scores)


def portrait_iou(scores):
    """Mean over every picture of the portrait parts."""
    return float(np.mean([value for part in PORTRAIT_PARTS for value in scores.get(part, [])]))


def keras_segment(network):
    """`segment` by a Keras model with an empty prior."""
    size = network.input["image"].shape[1]

    def segment(image):
        inputs = {"image": to_input(image, size, size)}
        if "prior" in network.input:
            inputs["prior"] = np.zeros((1, size, size, 1), np.float32)
        return np.asarray(network.predict_on_batch(inputs))[0, ..., 0]

    return segment


def tflite_segment(path):
    """`segment` by an exported file with an empty prior, one thread."""
    run = tflite_runner(path)
    return lambda image: run(image, None)[0]


def tflite_runner(path):
    """(image, prior or None) -> (mask (h,w) float32, the prior for the next frame) by an exported file."""
    # The runner lives only as long as its interpreter: the closure keeps both.
    interpreter = Interpreter(str(path), num_threads=1)
    runner = interpreter.get_signature_runner()
    shapes = {name: detail["shape"] for name, detail in runner.get_input_details().items()}

    def run(image, prior):
        inputs = {"image": to_input(image, *shapes["image"][1:3])}
        if "prior" in shapes:
            inputs["prior"] = np.zeros(shapes["prior"], np.float32) if prior is None else prior
        mask = runner(**inputs)["mask"]
        return mask[0, ..., 0], mask

    return run


def to_input(image, height, width):
    """(1,height,width,3) float32 in 0..1 of a uint8 RGB picture, resized as the service resizes frames."""
    return cv2.resize(image, (int(width), int(height)), interpolation=cv2.INTER_LINEAR)[None].astype(np.float32) / 255.0


def summary(scores, bootstrap=2000, seed=1):
    """Rows {part, pictures, iou, low, high, p5}: mean, its 95 % bootstrap interval, 5th percentile, all in per cent."""
    groups = {"portrait": [v for part in PORTRAIT_PARTS for v in scores.get(part, [])], **scores}
    rng = np.random.default_rng(seed)
    rows = []
    for part, values in groups.items():
        values = np.array(values)
        means = rng.choice(values, (bootstrap, len(values))).mean(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        figures = {"iou": values.mean(), "low": low, "high": high, "p5": np.percentile(values, 5)}
        rows.append({"part": part, "pictures": len(values)} | {k: round(100 * float(v), 2) for k, v in figures.items()})
    return rows


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/portraits"))
    parser.add_argument("--split", default="val")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = summary(evaluate(tflite_segment(arguments.model), Portraits(arguments.data, arguments.split)))
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'part':<10}{'pictures':>9}{'IoU %':>8}   {'95 % interval':<16}{'p5 %':>7}")
    for row in rows:
        interval = f"{row['low']:.2f} .. {row['high']:.2f}"
        print(f"{row['part']:<10}{row['pictures']:>9}{row['iou']:>8.2f}   {interval:<16}{row['p5']:>7.2f}")


if __name__ == "__main__":
    main()
