"""The paper's Table I with what is measured here beside what the paper prints.

    python -m training.table

prints it from `training/results`, which `training.measure` fills.
"""

import json
from dataclasses import dataclass
from pathlib import Path

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
VIDEO = ("slow", "fast", "lag", "flips", "ghost", "gone", "empty", "IoU", "F", "dtSSD", "E_warp")
"""Columns of the steadiness table; `evaluate_video` says what they mean."""

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
    speed = stored("speed")
    for row in ROWS:
        found = stored(row.run) if row.run else {}
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
    speed = stored("speed")
    for name, label in {**{path.stem: f"`{path.stem}`" for path in embedded()}, **PEERS}.items():
        found = stored(name)
        if found:
            parts = [f"{found['val'][part]['iou']:.2f}" for part in ("self", "street", "face")]
            yield f"| {' | '.join([label, *_quality(found['val']), *parts, *_rates(speed, name)])} |"


def _video_rows():
    yield from _head(["", *VIDEO])
    for name, figures in stored("video").items():
        yield f"| {name} | {' | '.join(f'{figures[column]:.2f}' for column in VIDEO)} |"


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


def stored(name):
    """What `training/results/NAME.json` holds, {} where it is missing."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def store(name, value):
    """Keep a JSON value as `training/results/NAME.json`."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")


def embedded():
    """The shipped files, the default first."""
    return sorted(EMBEDDED.glob("*.tflite"), key=lambda path: (path.stem != "portrait", path.stem))


if __name__ == "__main__":
    print(markdown())
