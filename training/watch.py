"""What a training looks at every few epochs: first frames of val, and how steady and how empty its masks are."""

import cv2
import numpy as np
import torch

from training import evaluate, sequences
from training.held import Held
from training.wide import Wide

HOLD = 0.25
"""What `training.export --hold` is given for the shipped files."""

COLUMNS = ("portrait", "f", "wild", "widescreen", "flips", "empty")
"""IoU and boundary F of val's portraits, IoU of people in the wild and of portraits cut to 16:9, in per cent; pixels
per 10,000 that change sides between still frames; person in rooms without people, in per cent of the picture."""

SEQUENCES = 4
ROOMS = 24


class Watch:
    """The material, read once: every network of a run is shown the same."""

    def __init__(self, data, val):
        self._val, self._wide = val, Wide(val)
        self._data = data
        self._still = None

    def __call__(self, network, height, width):
        """{column: value} of a network for pictures of (height, width)."""
        segment = evaluate.network_segment(network, height, width)
        found = {}
        for group, members in evaluate.groups(evaluate.evaluate(segment, self._val)).items():
            if group in ("portrait", "wild"):
                found[group] = 100 * np.mean([score.iou for score in members])
            if group == "portrait":
                found["f"] = 100 * np.mean([score.boundary_f for score in members])
        wide = evaluate.groups(evaluate.evaluate(segment, self._wide)).get("portrait", [])
        if wide:
            found["widescreen"] = 100 * np.mean([score.iou for score in wide])
        return found | self._steadiness(network, height, width, segment)

    def _steadiness(self, network, height, width, segment):
        if self._still is None:
            made = sequences.generated(self._data, SEQUENCES)
            self._still = [sequence.frames for sequence in made if sequence.kind == "still"]
            self._rooms = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in kept_rooms(self._data)]
        found = {}
        if self._still and network.takes_prior:
            found["flips"] = np.mean([flips(network, height, width, frames) for frames in self._still])
        if self._rooms:
            found["empty"] = 100 * np.mean([np.mean(segment(room) > 0.5) for room in self._rooms])
        return found


def kept_rooms(data):
    """Paths of the first rooms that training never sees."""
    return sorted((data / "backgrounds").glob("*.jpg"))[::10][:ROOMS]


@torch.no_grad()
def flips(network, height, width, frames, settled=3):
    """Pixels per 10,000 that change sides between frames of a person who does not move; the prior is the last mask."""
    whole = Held(network.eval(), HOLD)
    device = next(network.parameters()).device
    mask, seen = torch.zeros(1, height, width, 1, device=device), []
    for frame in frames:
        mask = whole(torch.from_numpy(evaluate.to_input(frame, height, width)).to(device), mask)["mask"]
        seen.append(mask[0, ..., 0].cpu().numpy() > 0.5)
    return 1e4 * np.mean([np.mean(a != b) for a, b in zip(seen[settled:-1], seen[settled + 1 :], strict=True)])
