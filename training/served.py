"""A model file as clients of the service see it: through the service's own pipeline."""

from fractions import Fraction

import cv2
import numpy as np

from portrait.core.compositors import Options, open_compositor
from portrait.core.pipeline import Pipeline
from portrait.core.segmenters import open_model
from portrait.image.convert import frame_from_bgr
from portrait.image.frame import Timestamp
from portrait.metrics import Metrics

FRAME_TIME = 1 / 30


class Stream:
    """One stream's masks: RGB frames (H,W,3) uint8 in, probabilities (H,W) float32 out."""

    def __init__(self, path):
        model = open_model(path)
        self._pipeline = Pipeline(model.open(), (model.width, model.height), Metrics())
        self._options = Options("mask")
        self._compositor = open_compositor(self._options)
        self._count = 0

    def __call__(self, picture):
        """The mask of the next frame, 1/30 of a second after the one before."""
        self._count += 1
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        frame = frame_from_bgr(bgr, Timestamp(0, Fraction(1)), self._count * FRAME_TIME)
        values = self._pipeline.run(frame, self._options, self._compositor).mask.values
        return cv2.resize(values, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255.0
