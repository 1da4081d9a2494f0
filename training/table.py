"""The paper's Table I with what is measured here beside what the paper prints.

    python -m training.table [--into docs/develop/training.md ...]

prints it, and the tables of the shipped files, from `training/results`, which `training.measure` fills.
"""

import argparse
import json
import re
from dataclasses import astuple, dataclass
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
PEERS = {
    "selfie_segmentation": "MediaPipe selfie general, 256x256",
    "selfie_segmentation_landscape": "MediaPipe selfie landscape, 144x256",
}

SERVED = {
    "served": "`portrait`, first frames as the service shows them",
    "still": "`portrait-fine`, stills as the service shows them",
    "max": "`max`, stills as the service shows them",
}
"""What is measured through the service's pipeline, all of it: looks, and contours on the picture's edges."""

RUNS = Path(__file__).parent / "runs"
"""Weights of runs that the repository keeps: those of the shipped files, and those that may be gone on with."""

TRAINED = {"portrait": "open_mean", "portrait-wide": "open_mean", "portrait-fine": "open_mean"}
"""The run of `RUNS` that a shipped file comes from."""

PORTRAIT = ("IoU, %", "95 % interval", "p5", "mIoU", "boundary F")
SPEED = ("fps", "times", "web fps", "web fps, tfjs-tflite")
VIDEO = ("slow", "fast", "lag", "flips", "ghost", "gone", "empty", "IoU", "F", "dtSSD", "E_warp")
"""Columns of the steadiness table; `evaluate_video` says what they mean."""


def tables():
    """{name: lines of Markdown} of every table, from what is stored."""
    return {
        "rows": list(_lines(["row", "start", "parameters", "MACs, M", *PORTRAIT, "wild IoU", *SPEED], _trained())),
        "published": list(_lines(PUBLISHED, _published())),
        "files": list(_lines(["file", *PORTRAIT, "self", "street", "face", "16:9", "wild", *SPEED], _files())),
        "parts": list(_lines(["part", "pictures", *PORTRAIT], _parts())),
        "slices": list(_lines(["pictures of val with", "pictures", "IoU, %", "95 % interval", *STILLS], _slices())),
        "failures": list(_lines(["", *FAILURES.values()], _failures())),
        "video": list(_lines(["", *VIDEO], _video())),
        "reuse": list(_lines(REUSE, _reuse())),
    }


def _lines(heads, rows):
    for cells in (heads, ["---"] * len(heads), *rows):
        yield f"| {' | '.join(map(str, cells))} |"


def _trained():
    for row in ROWS:
        found = stored(row.run) if row.run else {}
        if found:
            facts = [f"{found['parameters']:,}", f"{found['macs'] / 1e6:.1f}"]
            figures = [*_figures(found["val"]["portrait"]), f"{found['val']['wild']['iou']:.2f}", *_rates(row.run)]
            yield [row.label, row.start, *facts, *figures]
        elif row.run or row.note:
            gaps = [""] * (1 + len(PORTRAIT) + 1 + len(SPEED))
            yield [row.label, row.start, row.note or "not trained yet", *gaps]


PUBLISHED = ["row", "start", "parameters, M", "FLOPs or MACs, M", "EG1800, %", "EasyPortrait, %", "fps", "web fps"]


def _published():
    for row in ROWS:
        if row.published:
            yield [row.label, row.start, *("" if value is None else value for value in astuple(row.published))]


def _files():
    drawn = stored("speed").get("native", {}).get("paper_as_drawn")
    if drawn:
        gaps = [""] * (len(PORTRAIT) + 5)
        yield ["the paper's network as drawn (speed only)", *gaps, *_rates("paper_as_drawn")]
    shipped = {path.stem: f"`{path.stem}`" for path in embedded()}
    for name, label in {**SERVED, **shipped, **PEERS}.items():
        if found := stored(name):
            *parts, wild = (f"{found['val'][part]['iou']:.2f}" for part in ("self", "street", "face", "wild"))
            wide = f"{found['wide']['portrait']['iou']:.2f}" if "wide" in found else ""
            yield [label, *_figures(found["val"]["portrait"]), *parts, wide, wild, *_rates(name)]


def _parts():
    for name, figures in stored("portrait").get("val", {}).items():
        yield [name, figures["pictures"], *_figures(figures)]


def _slices():
    others = [stored(name).get("slices", {}) for name in ("still", "max")]
    for name, figures in stored("portrait").get("slices", {}).items():
        cells = [f"{other[name]['iou']:.2f}" if name in other else "" for other in others]
        yield [name, figures["pictures"], *_figures(figures)[:2], *cells]


STILLS = ("stills, IoU, %", "`max`, IoU, %")

FAILURES = {
    ("portrait", "below_90"): "portraits below 90 %", ("portrait", "below_80"): "below 80 %", ("portrait", "p5"): "p5",
    ("wild", "below_90"): "wild below 90 %", ("wild", "below_80"): "below 80 %", ("wild", "p5"): "p5",
}  # fmt: skip
"""(group, figure) of the table of failures: the share of pictures whose IoU is lower, and the 5th percentile."""


def _failures():
    for name, label in SERVED.items():
        found = stored(name).get("val", {})
        if "below_90" in found.get("portrait", {}):
            yield [label, *(f"{found[group][key]:.1f}" for group, key in FAILURES)]


def _video():
    for name, figures in stored("video").items():
        yield [
            name.replace("selfie_segmentation", "MediaPipe general"),
            *(f"{figures[column]:.2f}" for column in VIDEO),
        ]


REUSE = [
    "sequence", "network runs, %", "IoU with every frame's masks", "IoU, every frame", "IoU, on change",
    "flips, every frame", "flips, on change", "lag",
]  # fmt: skip


def _reuse():
    for name, figures in stored("reuse").items():
        columns = ("same", "every IoU", "IoU", "every flips", "flips")
        yield [name, f"{figures['share']:.0f}", *(f"{figures[key]:.2f}" for key in columns), figures.get("lag", "")]


def _figures(group):
    interval = f"{group['low']:.2f} to {group['high']:.2f}"
    return [
        f"{group['iou']:.2f}",
        interval,
        *(f"{group[key]:.2f}" for key in ("p5", "miou", "boundary_f") if key in group),
    ]


def _rates(name):
    speed = stored("speed")
    native = speed.get("native", {}).get(name)
    if native is None:
        return [""] * len(SPEED)
    web = [speed.get(runtime, {}).get(name, {}) for runtime in ("litertjs", "tfjs-tflite")]
    return [
        f"{native['fps']:.0f}",
        f"{native['ratio']:.2f}",
        *(f"{rates['fps']:.0f}" if "fps" in rates else "refused" for rates in web),
    ]


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


def filled(page):
    """The text of a page with every table between `<!-- table: NAME -->` and `<!-- end -->` as it is stored now."""
    made = tables()
    return MARKED.sub(lambda found: "\n".join([found[1], *made[found[2]], found[3]]), page)


MARKED = re.compile(r"(<!-- table: (\w+) -->)\n.*?(<!-- end -->)", re.DOTALL)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, nargs="*", default=[], help="pages whose tables are brought up to date")
    arguments = parser.parse_args()
    for path in arguments.into:
        path.write_text(filled(path.read_text()))
    for name, lines in tables().items():
        print(name, *lines, "", sep="\n")


if __name__ == "__main__":
    main()
