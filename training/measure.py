"""Measure everything the tables print: `python -m training.measure --runs runs --peers PEERS`.

Exports every finished run of the rows, evaluates the files on the val split, measures their speed in the interpreter
and in a browser, and the steadiness of the shipped models and of the peers, into `training/results`. PEERS is a folder
with MediaPipe's `selfie_segmentation.tflite` and `selfie_segmentation_landscape.tflite` (inside the wheel of mediapipe
0.10.21).
"""

import argparse
import csv
import json
import tempfile
from pathlib import Path

import cv2

from portrait.errors import BadModel
from training import evaluate, evaluate_video, export, metrics, model, served, slices, speed, table
from training.data import Portraits, add_option
from training.wide import Wide

PARTS = ("masks", "speed", "video")
"""What is measured: the masks of val, the time of a call (on a machine that does nothing else), steadiness."""

FACTS = ("parameters", "macs", "size", "curve")
"""What is stored of a training besides what its file scores."""


def measure(runs, data, peers, parts, web, only=()):
    """Fill the results that `training.table` prints; `only`: masks and steadiness of the files of these names."""
    cv2.setNumThreads(1)
    files = {row.run: _export(runs / row.run) for row in table.ROWS if row.run}
    shipped = {path.stem: path for path in table.embedded()}
    others = {name: peers / f"{name}.tflite" for name in table.PEERS} if peers else {}
    files = {name: path for name, path in (files | shipped | others).items() if path}
    wanted = {name: path for name, path in files.items() if not only or name in only}
    if "masks" in parts:
        measure_masks(wanted, shipped, runs, data)
    if "speed" in parts:
        measure_speed(files, web)
    if "video" in parts:
        material = evaluate_video.prepare(data)
        models = [path for name, path in shipped.items() if name in wanted]
        peer = [path for name, path in list(others.items())[:1] if name in wanted]
        kept = {name: row for name, row in table.stored("video").items() if only and _stem(name) not in only}
        rows = evaluate_video.rows(models, peer)
        found = kept | {name: evaluate_video.measure(stream, material) for name, stream in rows.items()}
        order = [*evaluate_video.rows(shipped.values(), []), *found]
        table.store("video", {name: found[name] for name in order if name in found})


def measure_masks(files, shipped, runs, data):
    """The masks of every file, the slices of the shipped ones, and first frames as the service serves them."""
    val = Portraits(data, "val")
    parts = slices.slices(val)
    for name, path in files.items():
        scores = evaluate.evaluate(evaluate.File(path), val)
        stored = {"val": evaluate.summary(scores)}
        if name in shipped or name in table.PEERS:
            stored["wide"] = evaluate.summary(evaluate.evaluate(evaluate.File(path), Wide(val)))
        if name in shipped:
            stored["slices"] = {label: _slice([scores[i] for i in members]) for label, members in parts.items()}
        run = table.RUNS / table.TRAINED[name] if name in table.TRAINED else runs / name
        table.store(name, stored | (_facts(run, path) if _finished(run) else _known(name)))
        print(name, stored["val"]["portrait"], flush=True)
    if "portrait" in files:
        first_frames = evaluate.evaluate(lambda image: served.Stream(shipped["portrait"])(image), val)
        table.store("served", {"val": evaluate.summary(first_frames)})
    if "portrait-fine" in files:
        measure_stills(val)


def measure_stills(val):
    """Stills that name no model, and those of `max` where it has been fetched, as the service answers them."""
    for name, chosen in (("still", "auto"), ("max", "max")):
        try:
            segment = evaluate.still(chosen)
        except BadModel as error:
            print(f"{name} is not measured: {error}")
            continue
        scores, wide = evaluate.evaluate(segment, val), evaluate.evaluate(segment, Wide(val))
        parts = {label: _slice([scores[i] for i in members]) for label, members in slices.slices(val).items()}
        table.store(name, {"val": evaluate.summary(scores), "wide": evaluate.summary(wide), "slices": parts})
        print(name, table.stored(name)["val"]["portrait"], flush=True)


def measure_speed(files, web):
    """The rates of every file, after the paper's network as it is drawn, untrained: time does not ask for weights."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "drawn.tflite"
        drawn.write_bytes(export.convert(model.build("paper").eval(), 224, 224, plain=True))
        files = {"paper_as_drawn": drawn} | files
        rates = {"machine": speed.machine(), "native": speed.summary(speed.measure(files))}
        if web:
            rates |= {runtime: speed.summary(times) for runtime, times in speed.measure_web(files).items()}
    table.store("speed", rates)


def _slice(scores):
    low, high = metrics.bootstrap([score.iou for score in scores])
    figures = {"iou": sum(score.iou for score in scores) / len(scores), "low": low, "high": high}
    return {"pictures": len(scores)} | {key: round(100 * value, 2) for key, value in figures.items()}


def _finished(run):
    state = run / "state.json"
    if not state.exists():
        return False
    saved = json.loads(state.read_text())
    return saved["epoch"] >= saved["config"]["epochs"]


def _export(run):
    """The file of a finished run, made where it is missing; None of a run that is missing or not finished."""
    if not _finished(run):
        return None
    target = run / "model.tflite"
    if not target.exists():
        target.write_bytes(export.convert(*export.load(run)))
    return target


def _known(name):
    """What is stored of a file's training already: its run need not be at hand to measure the file."""
    return {key: value for key, value in table.stored(name).items() if key in FACTS}


def _stem(row):
    """The file of a row of the steadiness table: "portrait" of "portrait, as served"."""
    return row.split(",")[0]


def _facts(run, path):
    """The FACTS of a run whose file is `path`."""
    network, *_ = export.load(run)
    file = evaluate.File(path)
    height, width = file.height, file.width
    log = run / "log.csv"
    lines = list(csv.DictReader(log.read_text().splitlines())) if log.exists() else []
    curve = [{key: float(line[key]) for key in ("epoch", "loss", "portrait") if line[key]} for line in lines]
    macs = model.count_macs(network, height, width)
    return {"parameters": model.count_parameters(network), "macs": macs, "size": [height, width], "curve": curve}


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--peers", type=Path, help="without it the peers are left out")
    add_option(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="some of it only")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="of these files only")
    parser.add_argument("--no-web", action="store_true", help="leave the browser out")
    arguments = parser.parse_args()
    measure(arguments.runs, arguments.data, arguments.peers, arguments.parts, not arguments.no_web, arguments.only)
    for name, lines in table.tables().items():
        print(name, *lines, "", sep="\n")


if __name__ == "__main__":
    main()
