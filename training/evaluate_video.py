"""How steady masks are, how well they follow, and how fast they let go.

    python -m training.evaluate_video service/portrait/models/portrait.tflite [--peer peers/selfie_segmentation.tflite]

Generated sequences with exact masks, and the clips of the data folder (`sequences.py`). A model with a prior is
fed its own masks, shown as the service shows them and as they are, and once more without its prior; a peer is shown raw
and behind the filters of `smoothing.py`. An empty, constant or lagging mask looks perfectly steady, so no figure of
steadiness stands alone.

slow, fast   mean IoU while the person sways by 2 % and by 15 % of the width
flips        pixels per 10,000 that change sides from frame to frame while nothing moves but noise, from frame 3 on
ghost        what is still called person in the first frame after a cut to the empty room, as a share of the person
gone         frames after the cut until no more than 1 % of the person's size is there that a first frame would not show
empty        what a first frame of the room alone is taken for, as a share of the person
IoU, F       mean IoU and boundary F over the frames of the clips
dtSSD        100 times the root mean square of how the mask changes against how the truth does (Erofeev et al., 2015)
E_warp       1000 times the mean difference of the mask and its predecessor moved along the optical flow
lag          the k in 0..5 for which the masks fit the truth of k frames ago best, on "fast"
"""

import argparse
import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from training import evaluate, metrics, sequences, served, smoothing, table
from training.data import add_option

STEADY_FROM = 3
"""The first frames build the prior up and are no flicker."""

LAGS = range(6)


class Stream:
    """A file fed its own masks, or none, behind a filter."""

    def __init__(self, file, prior=True, smooth=smoothing.Raw):
        self._file, self._prior, self._smooth = file, prior, smooth()
        self._last = None

    def __call__(self, frame):
        """The probability (H,W) float32 at the frame's size."""
        mask = self._file(frame, self._last)
        self._last = mask if self._prior and self._file.takes_prior else None
        return cv2.resize(self._smooth(mask), frame.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def measure(open_stream, material):
    """{figure: value} of what `open_stream()` makes of every sequence; shares in per cent."""
    found = defaultdict(list)
    for sequence, flows in material:
        stream = open_stream()
        masks = [stream(frame) for frame in sequence.frames]
        seen = [mask > 0.5 for mask in masks]
        MEASURES[sequence.kind](found, sequence, masks, seen, flows, open_stream)
    return {name: round(float(np.mean(values)), 3) for name, values in found.items()}


def _still(found, sequence, masks, seen, flows, open_stream):
    flips = [1e4 * np.mean(a != b) for a, b in pairwise(seen[STEADY_FROM:])]
    found["flips"] += flips
    found[f"flips {sequence.condition}"] += flips


def _moving(found, sequence, masks, seen, flows, open_stream):
    found[sequence.kind] += [100 * metrics.iou(t, s) for t, s in zip(sequence.truths, seen, strict=True)]
    if sequence.kind == "fast":
        found["lag"].append(lag(sequence.truths, seen))


def _cut(found, sequence, masks, seen, flows, open_stream):
    person = max(1, np.count_nonzero(seen[sequences.CUT - 1]))
    first = [open_stream()(frame) > 0.5 for frame in sequence.frames[sequences.CUT :]]
    left = seen[sequences.CUT :]
    found["ghost"].append(100 * np.count_nonzero(left[0]) / person)
    found["empty"].append(100 * np.count_nonzero(first[0]) / person)
    extra = [np.count_nonzero(after & ~alone) / person for after, alone in zip(left, first, strict=True)]
    found["gone"].append(next((i for i, share in enumerate(extra) if share <= 0.01), len(extra)))


def _clip(found, sequence, masks, seen, flows, open_stream):
    found["IoU"].append(100 * np.mean([metrics.iou(t, s) for t, s in zip(sequence.truths, seen, strict=True)]))
    found["F"].append(100 * np.mean([metrics.boundary_f(t, s) for t, s in zip(sequence.truths, seen, strict=True)]))
    found["dtSSD"].append(dtssd(sequence.truths, masks))
    errors = [warp_error(a, b, *flow) for (a, b), flow in zip(pairwise(masks), flows, strict=True)]
    found["E_warp"].append(1000 * np.mean(errors))


MEASURES = {"still": _still, "slow": _moving, "fast": _moving, "cut": _cut, "clip": _clip}


def lag(truths, seen):
    """The k in LAGS for which the mean IoU of each mask with the truth of k frames before is highest."""
    fits = [np.mean([metrics.iou(truths[i - k], seen[i]) for i in range(max(LAGS), len(seen))]) for k in LAGS]
    return int(np.argmax(fits))


def dtssd(truths, masks):
    """100 times the mean over frames of the root mean square difference of the masks' and the truth's change."""
    pairs = zip(pairwise(masks), pairwise(truths), strict=True)
    changes = (((b - a) - (d.astype(np.float32) - c)) for (a, b), (c, d) in pairs)
    return 100 * float(np.mean([np.sqrt(np.mean(change**2)) for change in changes]))


def warp_error(before, after, flow, valid):
    """Mean |after - before moved along the flow| over the valid pixels; `flow` (H,W,2) leads from after to before."""
    height, width = after.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    moved = cv2.remap(before, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return float(np.abs(after - moved)[valid].mean())


def trusted_flow(before, after):
    """(flow, valid): DIS flow from `after` to `before`, and where the way there and back ends within a pixel."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, after)]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    back, forth = dis.calc(grey[1], grey[0], None), dis.calc(grey[0], grey[1], None)
    height, width = grey[0].shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    returned = cv2.remap(forth, x + back[..., 0], y + back[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return back, np.linalg.norm(back + returned, axis=-1) < 1.0


def prepare(data, count=24):
    """[(sequence, flows)] of everything that is measured; flows only for the clips."""
    material = [(sequence, None) for sequence in sequences.generated(data, count)]
    return material + [(clip, flows(clip.frames)) for clip in sequences.clips(data)]


def flows(frames):
    """`trusted_flow` of every two frames."""
    return [trusted_flow(a, b) for a, b in pairwise(frames)]


def rows(models, peers):
    """{name: open_stream} of the table's rows."""
    found = {}
    for path in models:
        file = evaluate.File(path)
        found[f"{path.stem}, as served"] = lambda path=path: served.Stream(path)
        found[path.stem] = lambda file=file: Stream(file)
        if file.takes_prior:
            found[f"{path.stem}, without prior"] = lambda file=file: Stream(file, prior=False)
    filters = {"raw": smoothing.Raw, "1 Euro": smoothing.OneEuro}
    filters |= {f"EMA {kept}": lambda kept=kept: smoothing.Average(kept) for kept in (0.3, 0.5, 0.7)}
    for path in peers:
        file = evaluate.File(path)
        for name, smooth in filters.items():
            found[f"{path.stem}, {name}"] = lambda file=file, smooth=smooth: Stream(file, smooth=smooth)
    return found


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="*")
    parser.add_argument("--peer", type=Path, nargs="*", default=[], help="files shown raw and behind filters")
    add_option(parser)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    if len({path.stem for path in arguments.models}) < len(arguments.models):
        parser.error("two models of one name came; they are told apart by it")
    material = prepare(arguments.data)
    if not material:
        parser.error(f"{arguments.data} has neither clips/ nor backgrounds/ and selfies; expected is one of them")
    found = {}
    print(f"{'':<44}" + "".join(f"{column:>8}" for column in table.VIDEO))
    for name, open_stream in rows(arguments.models, arguments.peer).items():
        found[name] = measure(open_stream, material)
        figures = [f"{found[name][column]:>8.2f}" if column in found[name] else f"{'':>8}" for column in table.VIDEO]
        print(f"{name:<44}" + "".join(figures), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
