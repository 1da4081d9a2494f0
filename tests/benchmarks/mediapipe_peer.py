"""MediaPipe's selfie segmentation by its own Python API, as its documentation calls it, for `frame.py` to measure.

Runs in an environment of its own (`make .venv-mediapipe/ready`: mediapipe 0.10.21, the last with these models, wants
NumPy 1). Speaks the protocol of `frame.py`: argument 1 is a .npy file of RGB frames (N,H,W,3); a line "NAME COUNT"
on stdin is answered by a JSON list of COUNT times of CPU, in seconds of the whole process.
"""

import json
import sys
import time

import cv2
import mediapipe
import numpy as np

GENERAL, LANDSCAPE = 0, 1


def composed_by_blend(frame, probability, background):
    """Person over background by OpenCV's float blend."""
    return cv2.blendLinear(frame, background, probability, 1.0 - probability)


def composed_by_the_docs(frame, probability, background):
    """Person over a background as MediaPipe's Python example does it."""
    condition = np.stack((probability,) * 3, axis=-1) > 0.1
    return np.where(condition, frame, background)


def blurred_by_the_docs(frame, probability, background):
    """Person over the blurred frame as the comments of that example say."""
    return composed_by_the_docs(frame, probability, cv2.GaussianBlur(frame, (55, 55), 0))


def main():
    """Answer until stdin ends."""
    cv2.setNumThreads(1)
    frames = np.load(sys.argv[1])
    background = np.full_like(frames[0], 127)
    networks = {
        name: mediapipe.solutions.selfie_segmentation.SelfieSegmentation(model_selection=number)
        for name, number in (("general", GENERAL), ("landscape", LANDSCAPE))
    }
    ways = {"mask": None, "blend": composed_by_blend, "docs": composed_by_the_docs, "docsblur": blurred_by_the_docs}
    for line in sys.stdin:
        name, count = line.split()
        network, way = name.split("-")
        times = []
        for i in range(int(count)):
            frame = frames[i % len(frames)]
            started = time.process_time()
            probability = networks[network].process(frame).segmentation_mask
            if ways[way]:
                ways[way](frame, probability, background)
            times.append(time.process_time() - started)
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
