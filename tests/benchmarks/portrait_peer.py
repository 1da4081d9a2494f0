"""Our side of `frame.py`: the service's own pipeline, frames in I420, in a process started as `portrait serve` is."""

import json
import sys
import time
from fractions import Fraction

import cv2
import numpy as np

from portrait.core.compositors import Options, open_compositor
from portrait.core.pipeline import Pipeline
from portrait.core.segmenters import EMBEDDED, open_model
from portrait.image.convert import frame_from_bgr
from portrait.image.frame import Timestamp
from portrait.metrics import Metrics


def main() -> None:
    """Answer until stdin ends; see `mediapipe_peer.py` for the protocol."""
    cv2.setNumThreads(1)
    frames = [
        frame_from_bgr(np.ascontiguousarray(rgb[..., ::-1]), Timestamp(i, Fraction(1, 30)), i / 30)
        for i, rgb in enumerate(np.load(sys.argv[1]))
    ]
    model = open_model(EMBEDDED / "portrait.tflite")
    pipeline = Pipeline(model.open(), (model.width, model.height), Metrics())
    for line in sys.stdin:
        mode, count = line.split()
        options = Options(mode, background=frames[0])
        compositor, times = open_compositor(options), []
        for i in range(int(count)):
            started = time.process_time()
            result = pipeline.run(frames[i % len(frames)], options, compositor)
            if mode != "mask":
                result.compose()
            times.append(time.process_time() - started)
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
