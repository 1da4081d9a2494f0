"""What composing costs, with and without what is done for edges and framing: `python -m tests.benchmarks.compose`.

CPU milliseconds of one thread, the median of the calls, an exact mask over a noisy picture; the variants in turns.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from portrait.bench import SIZES, make_frames
from portrait.compositors import Options, open_compositor
from portrait.compositors.base import blend_into
from portrait.frame import Frame
from portrait.framing import Window, show
from portrait.mask import Mask

WINDOW = Window(0.2, 0.1, 0.6)


def measure(works: Sequence[Callable[[], object]], runs: int) -> list[float]:
    """Milliseconds of each."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(runs):
        for work, each in zip(works, taken, strict=True):
            began = time.thread_time()
            work()
            each.append(1000 * (time.thread_time() - began))
    return [float(np.median(each)) for each in taken]


def _mask() -> Mask:
    values = np.zeros((192, 192), np.uint8)
    cv2.ellipse(values, (96, 192), (40, 140), 0, 0, 360, 255, -1)
    return Mask(np.asarray(cv2.GaussianBlur(values, (0, 0), 3), np.uint8))


def _plain(frame: Frame, mask: Mask, steep: np.ndarray) -> Frame:
    room = frame.y.copy(), frame.u.copy(), frame.v.copy()
    return blend_into(room, frame, mask, steep)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    cv2.setNumThreads(1)
    mask, steep = _mask(), Options().steep
    print("size   image, edges as they are   image   cutout   framing, besides")
    for size, (width, height) in SIZES.items():
        frame = make_frames(width, height, 1)[0]
        image = open_compositor(Options("image", background=frame))
        cutout = open_compositor(Options("cutout"))
        works: list[Callable[[], object]] = [
            lambda frame=frame: _plain(frame, mask, steep),
            lambda frame=frame, image=image: image.compose(frame, mask),
            lambda frame=frame, cutout=cutout: cutout.compose(frame, mask),
            lambda frame=frame: show(WINDOW, frame, mask),
        ]
        plain, whole, cut, framed = measure(works, runs)
        print(f"{size:<6} {plain:24.2f} {whole:7.2f} {cut:8.2f} {framed:18.2f}")


if __name__ == "__main__":
    main()
