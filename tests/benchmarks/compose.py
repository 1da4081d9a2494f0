"""What composing costs, with and without what is done for edges and framing: `python -m tests.benchmarks.compose`.

CPU milliseconds of one thread, the median of the calls, an exact mask over a noisy picture; the variants in turns.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np

from portrait.bench.frame import SIZES, make_frames
from portrait.core.auto_framing import Window, show
from portrait.core.compositors import HIDING_MODES, Options, open_compositor
from portrait.image.frame import Mask

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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    cv2.setNumThreads(1)
    mask = _mask()
    looks = [(mode, edges) for mode in ("color", "image", "cutout") for edges in (False, True)]
    looks += [(mode, False) for mode in ("blur", *HIDING_MODES)]
    print(
        "size  " + "".join(f"{mode + ', decontaminated' * edges:>24}" for mode, edges in looks) + "  framing, besides"
    )
    for size, (width, height) in SIZES.items():
        frame = make_frames(width, height, 1)[0]
        compositors = [open_compositor(Options(mode, background=frame, decontaminate=edges)) for mode, edges in looks]
        works: list[Callable[[], object]] = [partial(each.compose, frame, mask) for each in compositors]
        *composed, framed = measure([*works, partial(show, WINDOW, frame, mask)], runs)
        print(f"{size:<6}" + "".join(f"{each:>24.2f}" for each in composed) + f"{framed:>18.2f}")


if __name__ == "__main__":
    main()
