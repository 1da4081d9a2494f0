"""The networks alone, and how fast this core multiplies matrices: `python -m tests.benchmarks.network [--json FILE]`.

One thread, the same interpreter (LiteRT, XNNPACK), the files and the matrix product in turns within one run; wall time,
since the time of one call is too short for the clock of a thread. `make .venv-mediapipe/ready` first.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from portrait.core.segmenters import EMBEDDED
from portrait.workers.environment import THREADS
from tests.benchmarks.stored import add_option, report
from training import evaluate, export, model

ROOT = Path(__file__).parents[2]

GOALS = [("portrait", "MediaPipe general", 0.40), ("portrait", "SINet", 0.17)]
"""(ours, theirs, the share of its time wanted)"""

SGEMM_GOAL = 0.70
"""The share wanted of the rate at which the core multiplies large matrices in float32."""

SIDE = 512
"""Rows of those matrices: the caches hold them, and more is no faster."""


def files(folder: Path) -> dict[str, Path]:
    """The contestants. SINet is not trained: its time does not ask for weights."""
    (peers,) = (ROOT / ".venv-mediapipe").glob("lib/python3*/site-packages/mediapipe/modules/selfie_segmentation")
    sinet = folder / "sinet.tflite"
    sinet.write_bytes(export.convert(model.build("sinet").eval(), 224, 224))
    return {
        "portrait": EMBEDDED / "portrait.tflite",
        "portrait-int8": EMBEDDED / "portrait-int8.tflite",
        "MediaPipe general": peers / "selfie_segmentation.tflite",
        "MediaPipe landscape": peers / "selfie_segmentation_landscape.tflite",
        "SINet": sinet,
    }


def measure(rounds: int) -> dict[str, float]:
    """Median milliseconds of every network and of the matrix product ("sgemm")."""
    noise = np.random.default_rng(1)
    left, right = (noise.standard_normal((SIDE, SIDE)).astype(np.float32) for _ in range(2))
    product = np.empty_like(left)
    with tempfile.TemporaryDirectory() as folder:
        loaded = {name: evaluate.File(path) for name, path in files(Path(folder)).items()}
        for file in loaded.values():
            file(noise.integers(0, 256, (file.height, file.width, 3), np.uint8))
        calls = {name: file.invoke for name, file in loaded.items()}
        calls["sgemm"] = lambda: np.matmul(left, right, out=product)
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                started = time.perf_counter()
                call()
                times[name].append(1000 * (time.perf_counter() - started))
    return {name: round(float(np.median(found)), 3) for name, found in times.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    add_option(parser, "network")
    arguments = parser.parse_args()
    if any(os.environ.get(name) != "1" for name in THREADS):  # NumPy has read them already
        os.execve(
            sys.executable, [sys.executable, "-m", "tests.benchmarks.network", *sys.argv[1:]], os.environ | THREADS
        )
    times = measure(arguments.rounds)
    ratios = [
        {"ours": ours, "theirs": theirs, "ratio": round(times[ours] / times[theirs], 3), "goal": goal}
        for ours, theirs, goal in GOALS
    ]
    flops = 2 * model.count_macs(model.build("selfie"), 192, 192)
    rates = {"portrait": flops / times["portrait"] / 1e6, "sgemm": 2 * SIDE**3 / times["sgemm"] / 1e6}
    share = {"ratio": round(rates["portrait"] / rates["sgemm"], 3), "goal": SGEMM_GOAL}
    rounded = {name: round(rate, 1) for name, rate in rates.items()}
    report({"ms": times, "ratios": ratios, "gflops": rounded, "of_sgemm": share}, arguments.json)


if __name__ == "__main__":
    main()
