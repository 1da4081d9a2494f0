"""The paper's Table I with what is measured here beside what the paper prints.

    python -m training.table                                          # prints it from training/results
    python -m training.table --measure --runs runs --peers PEERS      # fills training/results first

`--measure` exports every finished run of the rows, evaluates the files on the val split, measures their speed in the
interpreter and in a browser, and the steadiness of the shipped models and of the peers. PEERS is a folder with
MediaPipe's `selfie_segmentation.tflite` and `selfie_segmentation_landscape.tflite` (inside the wheel of mediapipe
0.10.21); without it their stored figures stay.
"""

import argparse
import csv
import json
from dataclasses import dataclass
from pathlib import Path

import cv2

RESULTS = Path(__file__).parent / "results"
EMBEDDED = Path(__file__).parents[1] / "service" / "portrait" / "models"


@dataclass(frozen=True)
class Published:
    """A row as the paper prints it. `mega` is its FLOPs column, which mixes FLOPs and MACs."""

    parameters: float
    mega: int
    eg1800: float
    easyportrait: float | None = None
    native: int | None = None
    web: int | None = None


@dataclass(frozen=True)
class Row:
    """One line: its name, the training whose file is measured (none: published only), and the paper's figures."""

    label: str
    run: str | None = None
    published: Published | None = None
    start: str = "random"
    note: str = ""


ROWS = [
    Row("PortraitNet", "table_portraitnet", Published(2.080, 325, 95.99)),
    Row("HLB", None, Published(0.6, 700, 94.6), note="published figures only"),
    Row("SINet", "table_sinet", Published(0.087, 64, 94.81, None, 175, 68)),
    Row("RCRNet", None, Published(0.610, 190, 96.31), note="published figures only"),
    Row("the paper's, PP-LCNet-0.5x", "table_paper", Published(0.138, 91, 95.61, 96.02, None, 167)),
    Row("the same", None, Published(0.138, 91, 96.31, 96.88, 475, 167), "ImageNet", "no such weights to be had"),
    Row("the same without the prior", "table_without_prior", Published(0.138, 91, 96.15, 96.87, 475, 167)),
    Row("MobileNetV3-Small instead", "table_mobilenetv3", Published(0.205, 81, 96.10, 96.52, 341, 157)),
    Row("MobileNetV2-0.35x instead", "table_mobilenetv2"),
    Row("the same", "table_mobilenetv2_imagenet", Published(0.102, 93, 96.03, 96.64, 330, 152), "ImageNet"),
    Row("EfficientNetB0 instead", "table_efficientnetb0", Published(0.102, 334, 96.47, 97.56, 111, 35)),
    Row("ours, at the rows' budget", "table_portrait", None, "ImageNet"),
]
QUALITY = ("IoU portrait, % (95 %)", "p5", "mIoU", "F", "wild")
SPEED = ("fps", "times", "web fps: LiteRT.js / tfjs-tflite")
PEERS = {
    "selfie_segmentation": "MediaPipe selfie general 256x256",
    "selfie_segmentation_landscape": "MediaPipe selfie landscape 144x256",
}


def markdown():
    """The tables as Markdown, from what is stored."""
    return "\n".join([*_training_rows(), "", *_shipped_rows(), "", *_video_rows(), ""])


def _training_rows():
    heads = ["row", "start", "parameters", "MACs, M", *QUALITY, *SPEED, "paper: EG1800, EasyPortrait, fps, web"]
    yield from _head(heads)
    speed = _stored("speed")
    for row in ROWS:
        found = _stored(row.run) if row.run else {}
        cells = [row.label, row.start]
        if found:
            cells += [f"{found['parameters']:,}", f"{found['macs'] / 1e6:.1f}", *_quality(found["val"])]
            cells += _rates(speed, row.run)
        else:
            cells += [row.note or "not trained yet", *[""] * 9]
        cells[11:] = [cells[11], _printed(row.published)]
        yield f"| {' | '.join(cells)} |"


def _shipped_rows():
    yield from _head(["file", *QUALITY, "self", "street", "face", *SPEED])
    speed = _stored("speed")
    for name, label in {**{path.stem: f"`{path.stem}`" for path in embedded()}, **PEERS}.items():
        found = _stored(name)
        if found:
            parts = [f"{found['val'][part]['iou']:.2f}" for part in ("self", "street", "face")]
            yield f"| {' | '.join([label, *_quality(found['val']), *parts, *_rates(speed, name)])} |"


def _video_rows():
    from training.evaluate_video import COLUMNS

    yield from _head(["", *COLUMNS])
    for name, figures in _stored("video").items():
        yield f"| {name} | {' | '.join(f'{figures[column]:.2f}' for column in COLUMNS)} |"


def _head(cells):
    yield f"| {' | '.join(cells)} |"
    yield f"|{' --- |' * len(cells)}"


def _quality(val):
    whole = val["portrait"]
    interval = f"{whole['iou']:.2f} ({whole['low']:.2f}..{whole['high']:.2f})"
    return [interval, *(f"{whole[key]:.2f}" for key in ("p5", "miou", "boundary_f")), f"{val['wild']['iou']:.2f}"]


def _rates(speed, name):
    native, web = speed.get("native", {}).get(name), speed.get("litertjs", {}).get(name, {})
    old = speed.get("tfjs-tflite", {}).get(name, {})
    pair = " / ".join(f"{rates['fps']:.0f}" if "fps" in rates else "-" for rates in (web, old))
    return [f"{native['fps']:.0f}", f"{native['ratio']:.2f}", pair] if native else ["", "", ""]


def _printed(published):
    if published is None:
        return "-"
    figures = (published.eg1800, published.easyportrait, published.native, published.web)
    return ", ".join("-" if figure is None else f"{figure:g}" for figure in figures)


def _stored(name):
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _store(name, value):
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")


def embedded():
    """The shipped files, the default first."""
    return sorted(EMBEDDED.glob("*.tflite"), key=lambda path: (path.stem != "portrait", path.stem))


def measure(runs, data, peers, web):
    """Fill the results: what `markdown` prints."""
    from training import evaluate, evaluate_video, speed
    from training.data import Portraits

    cv2.setNumThreads(1)
    files = {"paper_as_drawn": _export(runs / "table_paper", plain=True)}
    files |= {row.run: _export(runs / row.run) for row in ROWS if row.run}
    shipped = {path.stem: path for path in embedded()}
    others = {name: peers / f"{name}.tflite" for name in PEERS} if peers else {}
    files = {name: path for name, path in (files | shipped | others).items() if path}
    val = Portraits(data, "val")
    for name, path in files.items():
        stored = {"val": evaluate.summary(evaluate.evaluate(evaluate.File(path), val))}
        _store(name, stored | (_facts(runs / name) if (runs / name).is_dir() else {}))
        print(name, stored["val"]["portrait"], flush=True)
    rates = {"machine": speed.machine(), "native": speed.summary(speed.measure(files))}
    if web:
        rates |= {runtime: speed.summary(times) for runtime, times in speed.measure_web(files).items()}
    _store("speed", rates)
    material = evaluate_video.prepare(data)
    rows = evaluate_video.rows(shipped.values(), list(others.values())[:1])
    _store("video", {name: evaluate_video.measure(stream, material) for name, stream in rows.items()})


def _export(run, plain=False):
    """The file of a finished run, made where it is missing; None of a run that is missing or not finished."""
    from training import export

    state = run / "state.json"
    if not state.exists():
        return None
    saved = json.loads(state.read_text())
    if saved["epoch"] < saved["config"]["epochs"]:
        return None
    target = run / ("plain.tflite" if plain else "model.tflite")
    if not target.exists():
        target.write_bytes(export.convert(*export.load(run), plain=plain))
    return target


def _facts(run):
    """Parameters, MACs, and the training's curve."""
    from training import export, model

    network, height, width = export.load(run)
    with open(run / "log.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    curve = [{key: float(line[key]) for key in ("epoch", "loss", "portrait") if line[key]} for line in lines]
    macs = model.count_macs(network, height, width)
    return {"parameters": model.count_parameters(network), "macs": macs, "size": [height, width], "curve": curve}


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/portraits"))
    parser.add_argument("--no-web", action="store_true", help="leave the browser out")
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.runs, arguments.data, arguments.peers, not arguments.no_web)
    print(markdown())


if __name__ == "__main__":
    main()
