"""Calibration: measures what the parts of a frame cost on this machine, in a few seconds, and caches the figures."""

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import av
import cv2
import numpy as np

from portrait import __version__
from portrait.admission.cost_model import SIZES, CostModel
from portrait.core.compositors import MODES, Options, open_compositor
from portrait.core.guided_filter import follow_edges, make_guide
from portrait.core.segmenters import Model, Models, Segmenter
from portrait.image.av_frame import av_from_frame, frame_from_av
from portrait.image.compressed import decode_frame, encode
from portrait.image.convert import bgr_from_frame, frame_from_bgr
from portrait.image.frame import Frame, Mask, Timestamp
from portrait.logs import log_event
from portrait.transports.webrtc.aiortc_patches.video_codecs import LiveVp8Encoder

logger = logging.getLogger(__name__)

RUNS, UNCOUNTED = 5, 2
"""Each part is measured RUNS times, after UNCOUNTED runs that fill caches and buffers; the median counts."""

MOST_SECONDS = 0.2
"""A part that takes long is measured less often: no more runs begin after this much CPU time."""

PAUSE = 0.005
"""Seconds between two runs, as between a camera's frames. Without a pause parts measure cheaper than in a stream."""

CHEAPER = 0.85
"""A model replaces another under pressure only if it takes less than this share of its time."""


def load_costs(models: Models, folder: Path | None = None, *, store: bool = True) -> CostModel:
    """The costs on this machine: read from `folder` or the user's cache, or else measured, and with `store` stored.

    They are valid for one version of the service, processor, set of models and allocator.
    """
    name = f"costs-{_key(models)}.json"
    places = [place / name for place in (folder, _cache()) if place is not None]
    for place in places:
        with suppress(OSError, ValueError, KeyError, TypeError):
            return _read(place.read_text(), models)
    started = time.perf_counter()
    parts = dict(measure(models))
    log_event(logger, logging.INFO, "calibrated", seconds=round(time.perf_counter() - started, 1))
    for place in places if store else []:
        with suppress(OSError):  # a read-only container has no cache and measures at every start
            place.parent.mkdir(parents=True, exist_ok=True)
            whole = place.with_suffix(f".{os.getpid()}")
            try:
                whole.write_text(json.dumps(parts))
                whole.replace(place)
            finally:
                whole.unlink(missing_ok=True)  # a full disk may have taken the name but no content
    return make_costs(parts, models)


def make_costs(parts: dict[str, tuple[float, ...]], models: Models) -> CostModel:
    """The CostModel of measured parts; a model's cheaper stand-in is the cheapest with masks of the same size."""
    cheaper = {}
    for name, model in models.by_name.items():
        like = [
            other.name
            for other in models.by_name.values()
            if (other.width, other.height, other.stateful) == (model.width, model.height, model.stateful)
        ]
        cheapest = min(like, key=lambda other: parts[f"segment {other}"][0])
        if parts[f"segment {cheapest}"][0] < CHEAPER * parts[f"segment {name}"][0]:
            cheaper[name] = cheapest
    return CostModel(parts, models.default, cheaper, models.finer or "")


def measure(models: Models) -> Iterator[tuple[str, tuple[float, ...]]]:
    """(part, seconds of CPU at each of SIZES) of every part, measured in this thread."""
    cv2.setNumThreads(1)
    scenes = [_Scene(width, height) for width, height in SIZES]
    for model in models.by_name.values():
        yield f"segment {model.name}", tuple(_segment(model, scene) for scene in scenes)
    default = models.pick(None)
    mask = _make_mask(default.width, default.height)
    for mode in MODES:
        yield f"compose {mode}", tuple(_compose(mode, scene, mask) for scene in scenes)
    yield "decode jpeg", tuple(_time(scene.decode_jpeg) for scene in scenes)
    yield "encode jpeg", tuple(_time(scene.encode_jpeg) for scene in scenes)
    yield "encode png", tuple(_time(scene.encode_png) for scene in scenes)
    for name, part in (("decode vp8", _Scene.decode_vp8), ("encode vp8", _Scene.encode_vp8)):
        yield name, tuple(_time(part(scene)) for scene in scenes)


class _Scene:
    """Frames of one size: a textured background with an oval that moves, and a camera's noise."""

    def __init__(self, width: int, height: int) -> None:
        noise = np.random.default_rng(1)
        background = noise.integers(0, 255, (18, 32, 3), np.uint8)
        self.frames = []
        for i in range(RUNS + UNCOUNTED):
            picture = cv2.resize(background, (width, height), interpolation=cv2.INTER_CUBIC)
            place, axes = (width // 2 + 4 * i, height), (width // 5, height * 3 // 4)
            cv2.ellipse(picture, place, axes, 0, 0, 360, (150, 170, 220), -1)
            noisy = np.asarray(cv2.add(picture, noise.integers(0, 8, picture.shape, np.uint8)), np.uint8)
            self.frames.append(frame_from_bgr(noisy, Timestamp(i, Fraction(1, 30)), 0.0))
        self.pixels = bgr_from_frame(self.frames[0])
        self.jpeg = encode(self.pixels, ".jpg")

    def decode_jpeg(self) -> Frame:
        return decode_frame(self.jpeg, 2**26, "data", Timestamp(0, Fraction(1)), 0.0)

    def encode_jpeg(self) -> bytes:
        return encode(self.pixels, ".jpg")

    def encode_png(self) -> bytes:
        return encode(self.pixels, ".png")

    def encode_vp8(self) -> Callable[[], Any]:
        encoder, frames = LiveVp8Encoder(), iter(self.frames)
        return lambda: encoder.encode(av_from_frame(next(frames)))

    def decode_vp8(self) -> Callable[[], Any]:
        encoder, decoder = LiveVp8Encoder(), av.CodecContext.create("vp8", "r")
        encoder.encode(av_from_frame(self.frames[0]))  # opens its codec, with the settings that count
        assert encoder.codec is not None
        pictures = [av_from_frame(frame) for frame in self.frames]
        pictures[0].pict_type = av.video.frame.PictureType.I
        packets = iter([packet for picture in pictures for packet in encoder.codec.encode(picture)])
        return lambda: [frame_from_av(frame, 2**26, 0.0) for frame in decoder.decode(next(packets))]


def _segment(model: Model, scene: _Scene) -> float:
    segmenter, frames = model.open(), iter(scene.frames)
    try:
        return _time(lambda: _mask(model, segmenter, next(frames)))
    finally:
        segmenter.close()


def _mask(model: Model, segmenter: Segmenter, frame: Frame) -> Mask:
    return follow_edges(segmenter.segment(frame), make_guide(frame, model.width, model.height))


def _compose(mode: str, scene: _Scene, mask: Mask) -> float:
    compositor, frames = open_compositor(Options(mode, background=scene.frames[0])), iter(scene.frames)
    return _time(lambda: compositor.compose(next(frames), mask))


def _make_mask(width: int, height: int) -> Mask:
    """An oval of the size of the model's masks: the compositors' blending windows depend on it."""
    centre, axes = (width // 2, height), (width * 2 // 9, height * 5 // 7)
    oval = cv2.ellipse(np.zeros((height, width), np.uint8), centre, axes, 0, 0, 360, 255, -1)
    return Mask(np.asarray(oval, np.uint8))


def _time(work: Callable[[], Any]) -> float:
    """Seconds of this thread's CPU time that `work` takes, which other programs disturb least."""
    taken = []
    for _ in range(RUNS + UNCOUNTED):
        time.sleep(PAUSE)
        started = time.thread_time()
        work()
        taken.append(time.thread_time() - started)
        if sum(taken) > MOST_SECONDS:
            break
    return median(taken[UNCOUNTED:] or taken[-1:])


def _read(text: str, models: Models) -> CostModel:
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("expected a JSON object of parts")
    parts = {str(name): tuple(float(figure) for figure in figures) for name, figures in document.items()}
    if parts.keys() != _part_names(models) or any(len(figures) != len(SIZES) for figures in parts.values()):
        raise ValueError("a figure is missing")
    return make_costs(parts, models)


def _part_names(models: Models) -> set[str]:
    """What `measure` measures."""
    return {
        *(f"segment {name}" for name in models.by_name),
        *(f"compose {mode}" for mode in MODES),
        *(f"decode {codec}" for codec in ("jpeg", "vp8")),
        *(f"encode {codec}" for codec in ("jpeg", "png", "vp8")),
    }


def _key(models: Models) -> str:
    """A hash of everything that the figures depend on."""
    files: Sequence[tuple[str, str, str]] = [
        (name, model.runtime, hashlib.sha256(Path(model.path).read_bytes()).hexdigest())
        for name, model in sorted(models.by_name.items())
    ]
    allocator = [os.environ.get(name) for name in ("LD_PRELOAD", "MALLOC_MMAP_THRESHOLD_")]
    document = json.dumps(
        [__version__, _processor(), cv2.__version__, av.__version__, files, models.default, allocator]
    )
    return hashlib.sha256(document.encode()).hexdigest()[:16]


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "CPU part", "Hardware")):
                return line
    return platform.machine()


def _cache() -> Path | None:
    """The user's cache folder; None if there is no home."""
    with suppress(RuntimeError):
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "portrait"
    return None
