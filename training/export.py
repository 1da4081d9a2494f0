"""Export weights to TFLite: `python -m training.export runs/portrait service/portrait/models/portrait.tflite`.

The file takes `image` (1,H,W,3) and, where the network does, `prior` (1,H,W,1), float32 in 0..1, and gives `mask`
(1,H,W,1). Two things are rewritten on the way out:

- The paper's 16x16 stride-8 transposed convolution becomes a 3x3 convolution to 64 channels and a depth-to-space by 8:
  the same numbers, at 0.7 of the network's time under XNNPACK (`--plain` leaves it as it is).
- A mask that differs little from its prior is held back (`--hold`), see `Held`.

The file says that half precision is enough for it: XNNPACK then computes in float16 on ARM processors that have such
arithmetic (ARMv8.2), and in float32 on all others.

A file whose output differs from PyTorch by more than 1e-3 on pictures of the val split is not written: a quarter of a
level of the service's 8-bit masks. Float32 rounds logits of some hundreds to 1e-3 of that scale at a contour.
"""

import argparse
import copy
import json
import tempfile
from pathlib import Path

import litert_torch
import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils
from torch import nn
from torch.nn import functional as F

from portrait.core.segmenters.tflite import HALF_PRECISION
from training import evaluate, model, selfie
from training.data import Portraits, add_option
from training.held import Held
from training.layers import folded

TOLERANCE = 1e-3

PRECISION = b"reduced_precision_support"
"""The name in a file's metadata under which XNNPACK looks for the precision that is enough."""


class DepthToSpaceHead(nn.Module):
    """The convolution and depth-to-space that do what a transposed convolution of 16x16, stride 8, does.

    Output row 8p + a of the transposed convolution (padding 4) sums kernel row a + 4 - 8d times input row p + d over
    d = -1, 0, 1, where that kernel row exists.
    """

    STRIDE, KERNEL = 8, 16

    def __init__(self, head):
        super().__init__()
        self.conv = nn.Conv2d(1, self.STRIDE**2, 3, 1, 1)
        weights = torch.zeros_like(self.conv.weight)
        offset = (self.KERNEL - self.STRIDE) // 2
        for row in range(self.KERNEL):
            for column in range(self.KERNEL):
                down, a = divmod(row - offset, self.STRIDE)
                right, b = divmod(column - offset, self.STRIDE)
                weights[a * self.STRIDE + b, 0, 1 - down, 1 - right] = head.weight[0, 0, row, column]
        self.conv.weight = nn.Parameter(weights)
        self.conv.bias = nn.Parameter(head.bias.expand(self.STRIDE**2).clone())

    def forward(self, x):
        """(N,1,H,W) -> (N,1,8H,8W)."""
        return F.pixel_shuffle(self.conv(x), self.STRIDE)


def convert(network, height, width, hold=0.0, plain=False):
    """The bytes of a float32 TFLite file of a network for pictures of (height, width)."""
    network = folded(copy.deepcopy(network))
    if isinstance(network, model.Paper) and not plain:
        network.head = DepthToSpaceHead(network.head)
    whole = Held(network, hold).eval()
    inputs = {"image": torch.zeros(1, height, width, 3)}
    if network.takes_prior:
        inputs["prior"] = torch.zeros(1, height, width, 1)
    edge = litert_torch.signature("serving_default", whole, sample_kwargs=inputs).convert()
    with tempfile.TemporaryDirectory() as folder:
        edge.export(f"{folder}/model.tflite")
        return with_half_precision((Path(folder) / "model.tflite").read_bytes())


def with_half_precision(data):
    """A TFLite file that says that half precision is enough for it."""
    made = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    made.buffers.append(schema.BufferT(data=list(HALF_PRECISION)))
    made.metadata = [*(made.metadata or []), schema.MetadataT(name=PRECISION, buffer=len(made.buffers) - 1)]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(made))


def largest_difference(network, hold, data, pictures):
    """The largest difference of PyTorch and the file, on each picture with an empty prior and with its own mask."""
    runner = Interpreter(model_content=data, num_threads=1).get_signature_runner()
    whole = Held(network, hold).eval()
    height, width = runner.get_input_details()["image"]["shape"][1:3]
    worst = 0.0
    for picture in pictures:
        inputs = {"image": evaluate.to_input(picture, height, width)}
        if network.takes_prior:
            inputs["prior"] = np.zeros((1, height, width, 1), np.float32)
        for _ in range(2):
            with torch.no_grad():
                expected = whole(**{name: torch.from_numpy(value) for name, value in inputs.items()})["mask"].numpy()
            difference = np.abs(runner(**inputs)["mask"] - expected).max()
            # max() would pass over NaN, the very thing a broken export gives.
            worst = max(worst, float(difference)) if np.isfinite(difference) else float("inf")
            if "prior" in inputs:
                inputs["prior"] = expected
    return worst


def load(run):
    """(network, height, width) of a training run with the weights it keeps, or of MediaPipe's file, untrained."""
    if run.suffix == ".tflite":
        (_, height, width, _), *_ = evaluate.File(run).shapes
        return selfie.load(run).eval(), height, width
    config = json.loads((run / "state.json").read_text())["config"]
    network = model.build(config["network"])
    network.load_state_dict(torch.load(run / "weights.pt", map_location="cpu", weights_only=True))
    return network.eval(), *config["sizes"][-1][1:]


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a training run, or MediaPipe's selfie_segmentation.tflite")
    parser.add_argument("target", type=Path)
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="other than the run's")
    parser.add_argument("--hold", type=float, default=0.0, help="differences to the prior that are held back, 0..0.5")
    parser.add_argument("--plain", action="store_true", help="leave the paper's transposed convolution in the graph")
    add_option(parser)
    arguments = parser.parse_args()
    network, *size = load(arguments.run)
    size = arguments.size or size
    data = convert(network, *size, arguments.hold, arguments.plain)
    val = Portraits(arguments.data, "val")
    pictures = [val[index][0] for index in range(0, len(val), 20)]
    difference = largest_difference(network, arguments.hold, data, pictures)
    print(f"largest difference to PyTorch on {len(pictures)} val pictures, two frames each: {difference:.2e}")
    if not difference <= TOLERANCE:
        raise SystemExit(f"more than {TOLERANCE:g}: {arguments.target} is not written")
    arguments.target.write_bytes(data)
    print(f"{arguments.target}: {len(data)} bytes")


if __name__ == "__main__":
    main()
