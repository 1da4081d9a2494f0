"""What each setting of the launcher is worth: the same work in processes that differ in it alone, in turns.

    python -m tests.benchmarks.launcher [--rounds 5] [--json]

CPU is the process's own, all threads; docs/operate/tuning.md holds the ratios.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping

from portrait.workers.environment import MALLOC, SMALL_OBJECTS, SWITCH_INTERVAL, THREADS
from tests.benchmarks.processes import jemalloc
from tests.benchmarks.stored import add_option, report

FRAMES = 150

CLEAN = {name: value for name, value in os.environ.items() if name not in MALLOC | THREADS and name != "LD_PRELOAD"}


def frames() -> dict[str, float]:
    """Milliseconds of CPU of a 720p JPEG decoded, segmented, blurred and encoded again."""
    import cv2

    from portrait.bench.frame import make_frames
    from portrait.core.compositors import Options, open_compositor
    from portrait.core.pipeline import Pipeline
    from portrait.core.segmenters import load_models
    from portrait.image.compressed import decode_frame, encode
    from portrait.image.convert import bgr_from_frame
    from portrait.metrics import Metrics

    cv2.setNumThreads(1)
    model, options = load_models().pick(None), Options("blur")
    pipeline = Pipeline(model.open(), (model.width, model.height), Metrics())
    shown = make_frames(1280, 720)
    jpegs = [encode(bgr_from_frame(frame), ".jpg") for frame in shown]
    compositor = open_compositor(options)

    def work(i: int) -> None:
        arrived = shown[i % len(shown)]
        frame = decode_frame(jpegs[i % len(jpegs)], 2**26, "data", arrived.timestamp, arrived.arrived)
        encode(bgr_from_frame(pipeline.run(frame, options, compositor).compose()), ".jpg")

    for i in range(20):
        work(i)
    began = time.process_time()
    for i in range(FRAMES):
        work(i)
    return {"cpu_ms": 1000 * (time.process_time() - began) / FRAMES}


def imports() -> dict[str, float]:
    """What loading NumPy leaves behind: threads of its OpenBLAS, and memory."""
    import numpy as np

    np.ones((64, 64)) @ np.ones((64, 64))
    status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())  # noqa: SIM115
    return {"threads": float(status["Threads"]), "rss_mb": int(status["VmRSS"].split()[0]) / 1024}


def beside_a_busy_thread() -> dict[str, float]:
    """Masks per second of one thread beside a Python thread that never pauses."""
    from portrait.bench.frame import make_frames
    from portrait.core.segmenters import load_models

    sys.setswitchinterval(float(os.environ["SWITCH"]))
    segmenter, shown = load_models().pick(None).open(), make_frames(640, 360)
    stop = False

    def spin() -> None:
        while not stop:
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < 3.0:
        segmenter.segment(shown[done % len(shown)])
        done += 1
    stop = True
    thread.join()
    return {"masks_per_second": done / 3.0}


WORK: dict[str, Callable[[], dict[str, float]]] = {
    "frames": frames, "imports": imports, "beside a busy thread": beside_a_busy_thread,
}  # fmt: skip


def variants() -> dict[str, tuple[str, Mapping[str, str]]]:
    """Name -> (work, what its environment holds besides)."""
    found = jemalloc()
    preloaded = {**THREADS, "LD_PRELOAD": str(found)}
    jemallocs = {
        "jemalloc": ("frames", preloaded),
        "jemalloc, small objects too": ("frames", preloaded | SMALL_OBJECTS),
    }
    return {
        "glibc as it is": ("frames", THREADS),
        "glibc tuned": ("frames", THREADS | MALLOC),
        **(jemallocs if found else {}),
        "threads of libraries as they are": ("imports", {}),
        "one thread": ("imports", THREADS),
        "switch interval 5 ms": ("beside a busy thread", {**THREADS, **MALLOC, "SWITCH": "0.005"}),
        f"switch interval {1000 * SWITCH_INTERVAL:g} ms": (
            "beside a busy thread",
            {**THREADS, **MALLOC, "SWITCH": str(SWITCH_INTERVAL)},
        ),
    }


def main() -> None:
    """Run every variant in turns, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    add_option(parser, "launcher")
    parser.add_argument("--work", choices=list(WORK), help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.work:
        print(json.dumps(WORK[parsed.work]()))
        return
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(parsed.rounds):
        for name, (work, environ) in variants().items():
            command = [sys.executable, "-m", "tests.benchmarks.launcher", "--work", work]
            done = subprocess.run(command, env=CLEAN | environ, capture_output=True, text=True, check=True)
            found.setdefault(name, []).append(json.loads(done.stdout))
    rows = {
        name: {figure: round(statistics.median(run[figure] for run in runs), 2) for figure in runs[0]}
        for name, runs in found.items()
    }
    report({"rounds": parsed.rounds, "settings": rows}, parsed.json)


if __name__ == "__main__":
    main()
