"""How much of people stays visible in the modes that hide them: `python -m training.visible`.

Counted are the pixels of the drawn masks of the val pictures of people in the wild (every part but self, street and
face) that such a mode leaves as the camera had them, and those of the room that it hides needlessly; for each margin.
Every picture is shown to the streams' model for eight frames, of which the last counts, and once to the stills' model.
"""

import argparse
from fractions import Fraction

import cv2
import numpy as np

from portrait.core.compositors import Options, open_compositor
from portrait.core.compositors.modes import hidden_area, resize
from portrait.core.pipeline import Pipeline
from portrait.core.segmenters import choose_models
from portrait.image.convert import frame_from_bgr
from portrait.image.frame import Timestamp
from portrait.metrics import Metrics
from portrait.settings import Settings
from training.data import PORTRAIT_PARTS, Portraits, add_option

MARGINS = (0.0, 0.03, 0.06, 0.1, 0.2)
FRAMES = 8
OPTIONS = Options("silhouette")


def hide(model, picture, frames):
    """What is hidden, besides the margin, of the RGB picture (H,W,3) uint8 in the last of so many frames: a Mask."""
    compositor, bgr = open_compositor(OPTIONS), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    pipeline = Pipeline(model.open(), (model.width, model.height), Metrics())
    try:
        for number in range(frames):
            frame = frame_from_bgr(bgr, Timestamp(number, Fraction(1, 30)), number / 30)
            result = pipeline.run(frame, OPTIONS, compositor)
        return result.hidden
    finally:
        pipeline.close()


def count(pairs, margin):
    """{figure: per cent} of pairs (hidden Mask, drawn mask (H,W) uint8)."""
    visible, needless = [], []
    for mask, drawn in pairs:
        covered = resize(hidden_area(mask, OPTIONS.steep, margin), *drawn.shape[::-1]) > 127
        person = drawn > 127
        visible.append(100 * np.count_nonzero(person & ~covered) / np.count_nonzero(person))
        needless.append(100 * np.count_nonzero(covered & ~person) / max(1, np.count_nonzero(~person)))
    shares = np.array(visible)
    return {
        "visible, mean": shares.mean(),
        "median": np.median(shares),
        "pictures above 10 %": 100 * (shares > 10).mean(),
        "above 50 %": 100 * (shares > 50).mean(),
        "room hidden": np.mean(needless),
    }


def main():
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_option(parser)
    cv2.setNumThreads(1)
    portraits = Portraits(parser.parse_args().data, "val")
    wild = [portraits[i] for i in range(len(portraits)) if portraits.part(i) not in PORTRAIT_PARTS]
    models = choose_models(Settings())
    for name, model, frames in (("stream", models.pick(None), FRAMES), ("still", models.pick_still(None), 1)):
        pairs = [(hide(model, picture, frames), drawn) for picture, drawn in wild if (drawn > 127).any()]
        for margin in MARGINS:
            row = "  ".join(f"{label} {value:5.1f} %" for label, value in count(pairs, margin).items())
            print(f"{name:<7} margin {margin:<5g} {len(pairs)} pictures  {row}", flush=True)


if __name__ == "__main__":
    main()
