"""A real network that fails in every way a network can, by a schedule."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from portrait.core.segmenters import EMBEDDED, Model, Models, Segmenter, open_model
from portrait.errors import SegmentationFailed
from portrait.image.frame import Frame, Mask

HANG_SECONDS = 1.0
"""What the service under test is given for `hang_seconds`."""

BEFORE_THE_FIRST_MASK = ("fails", "nan", "empty", "crashes")
ROUND = ("fails", "nan", "empty", "crashes", "late")
EVERY = 5
"""Frames from one trouble to the next: after each the network must find back to the person."""

HANGS_AT = {"always": 150, "on_change": 21}
"""The inference of every session at which its network hangs for good: as many as five seconds have, by the setting."""


def trouble(number: int, hangs_at: int) -> str:
    """What happens at a session's inference: one of the above, "hangs", or nothing."""
    if number < len(BEFORE_THE_FIRST_MASK):
        return BEFORE_THE_FIRST_MASK[number]
    if number == hangs_at:
        return "hangs"
    turn, rest = divmod(number, EVERY)
    return "" if rest else ROUND[turn % len(ROUND)]


class TroubledModel:
    """The embedded model, whose segmenters get into trouble."""

    name, path, runtime, stateful = "troubled", "nowhere", "litert", True

    def __init__(self, segment: str) -> None:
        """`segment` is the setting of that name."""
        self._hangs_at = HANGS_AT[segment]
        self._model = open_model(EMBEDDED / "portrait.tflite")
        self.width, self.height = self._model.width, self._model.height
        self.met: dict[str, int] = {}
        """How often each trouble has been made."""

    def open(self) -> Segmenter:
        return _TroubledSegmenter(self._model.open(), self.met, self._hangs_at)


class _TroubledSegmenter:
    def __init__(self, real: Any, met: dict[str, int], hangs_at: int) -> None:
        self._real, self._met, self._hangs_at, self._count = real, met, hangs_at, 0

    def segment(self, frame: Frame) -> Mask:
        name = trouble(self._count, self._hangs_at)
        self._count += 1
        if name:
            self._met[name] = self._met.get(name, 0) + 1
        match name:
            case "fails":
                raise SegmentationFailed("injected")
            case "crashes":
                raise MemoryError("injected")
            case "empty":
                mask = self._real.segment(frame)
                return Mask.empty(mask.width, mask.height)
            case "nan":
                with self._poisoned():
                    return self._real.segment(frame)
            case "late":
                time.sleep(0.4 * HANG_SECONDS)
            case "hangs":
                time.sleep(3 * HANG_SECONDS)
        return self._real.segment(frame)

    @contextmanager
    def _poisoned(self) -> Iterator[None]:
        """The interpreter gives a plane of NaN."""
        real = self._real._interpreter
        self._real._interpreter = _Poisoned(real)
        try:
            yield
        finally:
            self._real._interpreter = real

    def reset(self) -> None:
        self._real.reset()

    def resume(self, prior: Mask) -> None:
        self._real.resume(prior)

    def close(self) -> None:
        self._real.close()


class _Poisoned:
    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def tensor(self, index: int) -> Any:
        if index not in {each["index"] for each in self._real.get_output_details()}:
            return self._real.tensor(index)
        values = np.full_like(self._real.get_tensor(index), np.nan)
        return lambda: values


@contextmanager
def instead_of_the_embedded(model: Model) -> Iterator[None]:
    """Services started within the block have this one model; everything else of them is real."""
    with (
        patch("portrait.server.app.choose_models", lambda *_: Models({model.name: model}, model.name)),
        patch("portrait.server.app.warm", lambda _: None),
    ):
        yield
