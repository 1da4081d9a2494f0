"""Ensemble: several networks that answer as one, with the weighted mean of their masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from portrait.core.segmenters.base import Model, Segmenter
from portrait.image.frame import Frame, Mask, Plane


@dataclass(frozen=True, eq=False)
class Ensemble:
    """A Model of several: `members` and their shares in the mask, which sum to 1. It has the size of the first."""

    name: str
    members: Sequence[tuple[Model, float]]

    @property
    def width(self) -> int:
        """Pixels per row of the mask."""
        return self.members[0][0].width

    @property
    def height(self) -> int:
        """Rows of the mask."""
        return self.members[0][0].height

    @property
    def stateful(self) -> bool:
        """Whether any of the networks takes a prior mask."""
        return any(model.stateful for model, _ in self.members)

    @property
    def path(self) -> str:
        """Where the first one's file lies."""
        return self.members[0][0].path

    @property
    def runtime(self) -> str:
        """The name of the library that executes them."""
        return self.members[0][0].runtime

    def open(self) -> "EnsembleSegmenter":
        """A segmenter of each. Call it on the thread that will use them."""
        opened = [(model.open(), share) for model, share in self.members]
        return EnsembleSegmenter(opened, [(model.width, model.height) for model, _ in self.members])


class EnsembleSegmenter:
    """One stream's interpreters. Each has its own mask as its prior."""

    def __init__(self, segmenters: Sequence[tuple[Segmenter, float]], sizes: Sequence[tuple[int, int]]) -> None:
        self._segmenters, self._sizes = segmenters, sizes

    def segment(self, frame: Frame) -> Mask:
        """The mean of all masks of `frame`.

        Raises:
            SegmentationFailed: a network stopped or gave values that are no probabilities.
        """
        width, height = self._sizes[0]
        mean = np.zeros((height, width), np.float32)
        for segmenter, share in self._segmenters:
            values = segmenter.segment(frame).values
            mean += np.float32(share) * _at_size(values, self._sizes[0])
        return Mask(np.asarray(np.rint(mean), np.uint8))

    def reset(self) -> None:
        """Forget the priors: the next frame is a first frame."""
        for segmenter, _ in self._segmenters:
            segmenter.reset()

    def resume(self, prior: Mask) -> None:
        """Take `prior`, of the first one's size, as every network's mask before the next frame."""
        for (segmenter, _), size in zip(self._segmenters, self._sizes, strict=True):
            segmenter.resume(Mask(_at_size(prior.values, size)))

    def close(self) -> None:
        """Free the interpreters' memory. Idempotent; nothing else may be called afterwards."""
        for segmenter, _ in self._segmenters:
            segmenter.close()


def _at_size(values: Plane, size: tuple[int, int]) -> Plane:
    if (values.shape[1], values.shape[0]) == size:
        return values
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_LINEAR), np.uint8)
