"""A model file as clients of the service see it: through the service's own pipeline."""

from fractions import Fraction

import cv2
import numpy as np

from portrait.core.compositors import Options, open_compositor
from portrait.core.pipeline import Pipeline
from portrait.core.segmenters import open_model
from portrait.core.segmenters.pool import SegmenterPool
from portrait.core.segmenters.roi import RoiModel
from portrait.image.convert import frame_from_bgr
from portrait.image.frame import Timestamp
from portrait.metrics import Metrics

FRAME_TIME = 1 / 30


class Still:
    """Stills as the service answers them: RGB pictures (H,W,3) uint8 in, probabilities (H,W) float32 out.

    Each stands alone. `model` is what `Models.pick_still` gives.
    """

    def __init__(self, model):
        self._pool, self._options = SegmenterPool(model), Options("mask")
        self._compositor = open_compositor(self._options)

    def __call__(self, picture):
        """The mask of one picture."""
        pipeline = Pipeline(self._pool.open(), (self._pool.width, self._pool.height), Metrics())
        try:
            return mask_of(pipeline, picture, 0.0, self._options, self._compositor)
        finally:
            pipeline.close()


class Stream:
    """One stream's masks: RGB frames (H,W,3) uint8 in, probabilities (H,W) float32 out.

    `segmented` says of each frame whether the network ran: of every one, unless `on_change` is set.
    """

    def __init__(self, path, on_change=False):
        model = RoiModel(open_model(path))
        self._pipeline = Pipeline(model.open(), (model.width, model.height), Metrics(), on_change=on_change)
        self._options = Options("mask")
        self._compositor = open_compositor(self._options)
        self.segmented = []

    def __call__(self, picture):
        """The mask of the next frame, 1/30 of a second after the one before."""
        arrived = len(self.segmented) * FRAME_TIME
        result = run(self._pipeline, picture, arrived, self._options, self._compositor)
        self.segmented.append(not result.carried)
        return at_size(result, picture)


def mask_of(pipeline, picture, arrived, options, compositor):
    """The mask (H,W) float32 in 0..1 of the RGB picture (H,W,3) uint8 that arrives at `arrived` seconds."""
    return at_size(run(pipeline, picture, arrived, options, compositor), picture)


def run(pipeline, picture, arrived, options, compositor):
    """The Result of the RGB picture (H,W,3) uint8 that arrives at `arrived` seconds."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    result = pipeline.run(frame_from_bgr(bgr, Timestamp(0, Fraction(1)), arrived), options, compositor)
    if result.failure is not None:
        raise result.failure
    return result


def at_size(result, picture):
    """A result's mask (H,W) float32 in 0..1 at the picture's size."""
    size = picture.shape[1::-1]
    return cv2.resize(result.mask.values, size, interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255.0
