"""`portrait bench`: what one frame costs on this box."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np

from portrait.core.compositors import Options, open_compositor
from portrait.core.pipeline import Pipeline
from portrait.core.segmenters import Model
from portrait.image.convert import frame_from_bgr
from portrait.image.frame import Frame, Timestamp
from portrait.metrics import Metrics

SIZES = {"360p": (640, 360), "480p": (640, 480), "720p": (1280, 720)}
MODES = ("mask only", "blur", "color", "image")
RATE = 30.0
"""Frames per second of a stream, for the column "streams/core"."""

PAUSE = 0.005
"""Seconds between frames. After a pause, as cameras leave one, a core sleeps and its caches hold other data: a frame
costs half as much again as in an unbroken run."""


@dataclass
class Row:
    """One size and mode, in milliseconds. `cpu` is the thread's CPU time, which other load disturbs least."""

    size: str
    mode: str
    segment: float
    compose: float
    cpu: float
    p50: float
    p99: float
    streams_per_core: float


def bench(model: Model, frames: int) -> Iterator[Row]:
    """Measure each size and mode: I420 in, mask or I420 out, without codecs and transports."""
    cv2.setNumThreads(1)
    for size, (width, height) in SIZES.items():
        pictures = make_frames(width, height)
        for mode in MODES:
            yield _measure(model, size, mode, pictures, frames)


def _measure(model: Model, size: str, mode: str, pictures: Sequence[Frame], frames: int) -> Row:
    options = Options("mask" if mode == "mask only" else mode, background=pictures[0])
    compositor = open_compositor(options)
    pipeline = Pipeline(model.open(), (model.width, model.height), Metrics())
    walls, segments, composes = [], [], []
    for i in range(frames + 5):
        time.sleep(PAUSE)
        wall, cpu = time.perf_counter(), time.thread_time()
        result = pipeline.run(pictures[i % len(pictures)], options, compositor)
        segmented = time.thread_time()
        if mode != "mask only":
            result.compose()
        composes.append(time.thread_time() - segmented)
        segments.append(segmented - cpu)
        walls.append(time.perf_counter() - wall)
    pipeline.close()
    # The first runs fill caches and buffers.
    wall_ms, segment_ms, compose_ms = (1000 * np.array(seconds[5:]) for seconds in (walls, segments, composes))
    cpu_median = float(np.median(segment_ms + compose_ms))
    return Row(
        size=size,
        mode=mode,
        segment=round(float(np.median(segment_ms)), 3),
        compose=round(float(np.median(compose_ms)), 3) if mode != "mask only" else 0.0,
        cpu=round(cpu_median, 3),
        p50=round(float(np.median(wall_ms)), 3),
        p99=round(float(np.percentile(wall_ms, 99)), 3),
        streams_per_core=round(1000 / RATE / cpu_median, 1),
    )


def make_frames(width: int, height: int, count: int = 8) -> list[Frame]:
    """Draw a textured scene with a moving oval and noise; its content does not change what the model costs."""
    rng = np.random.default_rng(1)
    scene = cv2.resize(rng.integers(0, 255, (18, 32, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    frames = []
    for i in range(count):
        picture = scene.copy()
        cv2.ellipse(
            picture, (width // 2 + 4 * i, height), (width // 5, height * 3 // 4), 0, 0, 360, (150, 170, 220), -1
        )
        noisy = cv2.add(picture, rng.integers(0, 8, picture.shape, np.uint8))
        frames.append(frame_from_bgr(np.asarray(noisy, np.uint8), Timestamp(i, Fraction(1, 30)), i / 30))
    return frames


def table(rows: Sequence[Row]) -> str:
    """Format the rows as a table."""
    heads = ("segment", "compose", "cpu ms", "p50 ms", "p99 ms")
    lines = [f"{'size':<6}{'mode':<11}" + "".join(f"{head:>9}" for head in heads) + f"{'streams/core':>14}"]
    for row in rows:
        figures = (row.segment, row.compose, row.cpu, row.p50, row.p99)
        cells = "".join(f"{figure:>9.2f}" for figure in figures)
        lines += [f"{row.size:<6}{row.mode:<11}{cells}{row.streams_per_core:>14.1f}"]
    return "\n".join(lines)
