"""Trouble, to be injected where the real parts have none."""

import threading
from collections.abc import Callable

import numpy as np

from portrait.core.segmenters import Model, Models, Segmenter
from portrait.errors import SegmentationFailed
from portrait.image.frame import Frame, Mask


class FakeModel:
    """A model whose segmenters do what `segment` says; counts how many are open."""

    name, path, runtime, width, height, stateful = "fake", "nowhere", "none", 32, 32, True

    def __init__(self, segment: Callable[[Frame], Mask]) -> None:
        self._segment = segment
        self.open_count = 0
        self.resets = 0
        self.priors: list[Mask] = []

    def open(self) -> Segmenter:
        self.open_count += 1
        return _FakeSegmenter(self)


class _FakeSegmenter:
    def __init__(self, model: FakeModel) -> None:
        self._model = model

    def segment(self, frame: Frame) -> Mask:
        return self._model._segment(frame)

    def reset(self) -> None:
        self._model.resets += 1

    def resume(self, prior: Mask) -> None:
        self._model.priors.append(prior)

    def close(self) -> None:
        self._model.open_count -= 1


def full_mask(_: Frame) -> Mask:
    """Everything is the person."""
    return Mask(np.full((32, 32), 255, np.uint8))


def failing(_: Frame) -> Mask:
    """The network stops."""
    raise SegmentationFailed("injected")


class Gate:
    """A segmenter that waits inside until it is let through."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.let_through = threading.Semaphore(0)

    def __call__(self, frame: Frame) -> Mask:
        self.entered.release()
        assert self.let_through.acquire(timeout=60), "nobody opened the gate"
        return full_mask(frame)


def only(model: Model) -> Models:
    """Models of one."""
    return Models({model.name: model}, model.name)
