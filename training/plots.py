"""Plots of the stored results, and masks of pictures that may be shown: `python -m training.plots docs/plots`."""

import argparse
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from training import evaluate, sequences, table

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
SCENES = ROOT / "service" / "portrait" / "scenes"


def curves(target):
    """Loss and IoU over the epochs of every training."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, label in _trained():
        curve = table.stored(name)["curve"]
        left.plot([line["epoch"] for line in curve], [line["loss"] for line in curve], label=label)
        seen = [line for line in curve if "portrait" in line]
        right.plot([line["epoch"] for line in seen], [line["portrait"] for line in seen], marker=".", label=label)
    left.set(xlabel="epoch", ylabel="loss", xscale="log")
    right.set(xlabel="epoch", ylabel="IoU portrait, %", xscale="log")
    right.legend(fontsize="x-small", loc="lower right")
    _save(figure, target / "curves.svg")


def quality_against_time(target):
    """IoU of every file against the time of a frame on one thread."""
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    speed = table.stored("speed").get("native", {})
    labels = dict(_trained()) | {path.stem: path.stem for path in table.embedded()} | table.PEERS
    for name, label in labels.items():
        if name not in speed or not (found := table.stored(name)):
            continue
        whole = found["val"]["portrait"]
        error = [[whole["iou"] - whole["low"]], [whole["high"] - whole["iou"]]]
        marker = "*" if name in {path.stem for path in table.embedded()} else "s" if name in table.PEERS else "o"
        axes.errorbar(speed[name]["ms"], whole["iou"], error, fmt=marker, markersize=9, capsize=2)
        axes.annotate(label, (speed[name]["ms"], whole["iou"]), (6, 5), textcoords="offset points", fontsize="x-small")
    axes.set(xlabel="ms per frame, one thread", ylabel="IoU portrait, %", xscale="log")
    axes.grid(alpha=0.3)
    _save(figure, target / "iou-time.svg")


def overlays(target, model):
    """The masks of pictures that may be shown, laid over them in colour."""
    file = evaluate.File(model)
    shown = [_overlaid(picture, _probability(file, picture)) for picture in _pictures()]
    cv2.imwrite(str(target / "overlays.jpg"), np.hstack([np.hstack([*_pictures()]), *shown])[..., ::-1])


def letting_go(target, model):
    """Three frames of somebody, then a room without anybody, the file fed its own masks: what is left of them."""
    file = evaluate.File(model)
    rng = np.random.default_rng(1)
    person = _pictures()[0]
    room = cv2.resize(_read(sorted(SCENES.glob("*.jpg"))[0]), person.shape[1::-1])
    prior, shown = None, []
    for frame in [person] * 3 + [room] * 4:
        seen = sequences.noisy(frame, rng)
        prior = file(seen, prior)
        shown.append(cv2.resize(_overlaid(seen, cv2.resize(prior, seen.shape[1::-1])), (220, 220)))
    cv2.imwrite(str(target / "letting-go.jpg"), np.hstack(shown)[..., ::-1])


def _pictures():
    return [
        cv2.resize(_read(path), (360, 360), interpolation=cv2.INTER_AREA) for path in sorted(PICTURES.glob("*.jpg"))
    ]


def _read(path):
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def _probability(file, picture):
    return cv2.resize(file(picture), picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def _overlaid(picture, probability):
    """The picture, green where somebody is."""
    share = 0.55 * probability[..., None]
    return (picture * (1 - share) + np.array([30, 220, 90]) * share).astype(np.uint8)


def _trained():
    """(run, label) of every training that has results, the shipped one included."""
    rows = [(row.run, f"{row.label} ({row.start})") for row in table.ROWS if row.run]
    return [(name, label) for name, label in [*rows, ("portrait", "shipped")] if table.stored(name).get("curve")]


def _save(figure, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    # No date inside: the same figures give the same file.
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "portrait"
    curves(arguments.target)
    quality_against_time(arguments.target)
    default = table.embedded()[0]
    overlays(arguments.target, default)
    letting_go(arguments.target, default)


if __name__ == "__main__":
    main()
