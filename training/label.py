"""Label data folders with teachers, once: `python -m training.label ../shared/data/portraits ../shared/data/more`.

    python -m training.label FOLDER [FOLDER ...] --labels labels --multiclass selfie_multiclass_256x256.tflite

Both teachers are MediaPipe's and Apache-2.0. Each one's mask is the mean of what it says of the picture and of its
mirror image, and is kept at the teacher's own size as 8-bit grey, 255 = person: of a picture NAME of ../data/more in
labels/more/multiclass/NAME.png and labels/more/general/NAME.png. labels/more/labels.csv says how well the two agree.

The pictures are those of FOLDER/index.csv, of the split `train` where it names splits: FOLDER/images/NAME.jpg or
FOLDER/unlabelled/NAME.jpg. A run that was stopped goes on where it was.
"""

import argparse
import csv
from pathlib import Path

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

COLUMNS = ("name", "agreement", "person", "unsure")
"""agreement: IoU of the teachers at 0.5; person: share of the picture; unsure: pixels of 0.25 to 0.75 per person."""

SHARE = 2 / 3
"""The multiclass model's share in a label. Measured on val: better than either teacher alone."""


class Teacher:
    """A TFLite file without a prior on one thread: (H,W,3) float32 RGB in 0..1 in, person (H,W) in 0..1 out."""

    def __init__(self, path):
        self._interpreter = Interpreter(str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input, self._output = (
            details[0] for details in (self._interpreter.get_input_details(), self._interpreter.get_output_details())
        )
        self.height, self.width = (int(side) for side in self._input["shape"][1:3])

    def __call__(self, image):
        """The mean over the picture and its mirror image, at the teacher's size."""
        # Like the student, a teacher is given the whole picture squeezed to its own shape.
        smaller = image.shape[0] > self.height and image.shape[1] > self.width
        method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        resized = cv2.resize(image, (self.width, self.height), interpolation=method).astype(np.float32) / 255.0
        return 0.5 * (self._person(resized) + self._person(resized[:, ::-1])[:, ::-1])

    def _person(self, image):
        self._interpreter.set_tensor(self._input["index"], np.ascontiguousarray(image)[None])
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output["index"])[0, ..., 0]


class Multiclass(Teacher):
    """MediaPipe's selfie multiclass model: pictures in -1..1 in, logits of six classes out, background the first."""

    def _person(self, image):
        self._interpreter.set_tensor(self._input["index"], np.ascontiguousarray(image * 2.0 - 1.0)[None])
        self._interpreter.invoke()
        logits = self._interpreter.get_tensor(self._output["index"])[0]
        likely = np.exp(logits - logits.max(-1, keepdims=True))
        return 1.0 - likely[..., 0] / likely.sum(-1)


def find(folder, licences=()):
    """{name: path} of the pictures of a data folder that may be learned from, with `licences` only of those."""
    with open(folder / "index.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("split", "train") == "train"]
    names = [row["name"] for row in rows if not licences or row.get("licence") in licences]
    places = [folder / "images", folder / "unlabelled"]
    found = {}
    for name in names:
        paths = [path for place in places if (path := place / f"{name}.jpg").exists()]
        if not paths:
            raise FileNotFoundError(f"{folder / 'index.csv'} lists {name}, which is in none of {places}")
        found[name] = paths[0]
    return found


def mixed(multiclass, general):
    """The label of two teachers' masks, in 0..1 or 0..255."""
    return SHARE * multiclass + (1 - SHARE) * general


def compare(multiclass, general):
    """{agreement, person, unsure} of two masks (H,W) in 0..1."""
    a, b, label = multiclass > 0.5, general > 0.5, mixed(multiclass, general)
    either, person = np.count_nonzero(a | b), np.count_nonzero(label > 0.5)
    unsure = np.count_nonzero((label > 0.25) & (label < 0.75))
    return {
        "agreement": round(np.count_nonzero(a & b) / either if either else 1.0, 4),
        "person": round(person / label.size, 4),
        "unsure": round(unsure / max(person, 1), 4),
    }


def label(pictures, multiclass, general, target):
    """Write the masks and the line of every picture of {name: path} that `target` does not have yet."""
    for teacher in ("multiclass", "general"):
        (target / teacher).mkdir(parents=True, exist_ok=True)
    table = target / "labels.csv"
    if table.exists():  # a line that a stopped run did not finish is taken away
        table.write_bytes(b"".join(line for line in table.read_bytes().splitlines(True) if line.endswith(b"\n")))
    done = labelled(target)
    with open(table, "a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not table.stat().st_size:
            writer.writeheader()
        for name, path in pictures.items():
            if name in done:
                continue
            image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            masks = {"multiclass": multiclass(image), "general": general(image)}
            if masks["multiclass"].shape != masks["general"].shape:
                masks["general"] = cv2.resize(masks["general"], masks["multiclass"].shape[::-1])
            for teacher, mask in masks.items():
                cv2.imwrite(str(target / teacher / f"{name}.png"), np.clip(255 * mask + 0.5, 0, 255).astype(np.uint8))
            # The line comes after the masks: what has a line is whole.
            writer.writerow({"name": name} | compare(**masks))
            file.flush()


def labelled(target):
    """{name: line} of what a folder of labels holds; a last line that is not finished yet is left out."""
    path = target / "labels.csv"
    if not path.exists():
        return {}
    lines = [line for line in path.read_text().splitlines(True) if line.endswith("\n")]
    return {row["name"]: row for row in csv.DictReader(lines)}


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--labels", type=Path, default=Path("labels"), help="where they go (default labels)")
    peers = Path("peers")
    parser.add_argument("--multiclass", type=Path, default=peers / "selfie_multiclass_256x256.tflite")
    parser.add_argument("--general", type=Path, default=peers / "selfie_segmentation.tflite")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    multiclass, general = Multiclass(arguments.multiclass), Teacher(arguments.general)
    for folder in arguments.folders:
        pictures, target = find(folder), arguments.labels / folder.resolve().name
        print(f"{folder}: {len(labelled(target).keys() & pictures)} of {len(pictures)} are labelled", flush=True)
        label(pictures, multiclass, general, target)


if __name__ == "__main__":
    main()
