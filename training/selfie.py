"""MediaPipe's selfie segmentation network with the paper's prior, and how its weights are read.

    python -m training.selfie peers/selfie_segmentation.tflite selfie.pt

writes the weights of Google's file as a state of `Selfie`; `training.train --init selfie.pt` starts from it. The file
(general 256x256, or landscape 144x256) is Apache-2.0: "MediaPipe Selfie Segmentation" by Google, in the wheel of
mediapipe 0.10.21. The layers are those of its graph: an encoder like MobileNetV3-Small (arXiv:1905.02244), a gate of
pooled features, and three decoder stages whose skip connections are gated by channel.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import nn
from torch.nn import functional as F

from training.layers import ConvBN, InvertedResidual, SqueezeExcite, upsample

# Kernel, hidden channels, output channels, channels of the squeeze (0: none), activation, stride.
BLOCKS = [
    (3, 16, 16, 8, "relu", 2),
    (3, 72, 24, 0, "relu", 2),
    (3, 88, 24, 0, "relu", 1),
    (5, 96, 32, 24, "hard_swish", 2),
    (5, 128, 32, 32, "hard_swish", 1),
    (5, 128, 32, 32, "hard_swish", 1),
    (5, 96, 32, 24, "hard_swish", 1),
    (5, 96, 32, 24, "hard_swish", 1),
]
TAPS = {0: 4, 2: 8, 7: 16}
"""Stride of the features after a block."""


class Selfie(nn.Module):
    """The layers of MediaPipe's selfie models, and an 8x8 convolution of the prior added at stride 8.

    The prior's convolution starts at zero: the network then computes what Google's file computes. Its output is o, and
    the logit sign(o) log(1 + |o|): the file's own outputs are in the hundreds, where neither a sigmoid nor a cross
    entropy has a gradient left.
    """

    takes_prior = True
    multiple = 16

    def __init__(self):
        super().__init__()
        self.stem = ConvBN(3, 16, 3, 2, "hard_swish", end=True)
        blocks, inputs = [], 16
        for kernel, hidden, outputs, squeeze, activation, stride in BLOCKS:
            excite = SqueezeExcite(hidden, squeeze, "relu", nn.Sigmoid) if squeeze else None
            blocks.append(InvertedResidual(inputs, outputs, stride, hidden, kernel, activation, excite, True, True))
            inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.wide = ConvBN(32, 128)
        self.pooled = nn.Conv2d(32, 128, 1)
        self.stages = nn.ModuleList([Stage(128, 24), Stage(24, 16), Stage(16, 16)])
        self.prior = nn.Conv2d(1, 24, 8, 8)
        nn.init.zeros_(self.prior.weight)
        nn.init.zeros_(self.prior.bias)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, image, prior):
        """Logits (N,1,H,W)."""
        output = F.pixel_shuffle(self.quarters(image, prior), 2)
        return torch.sign(output) * torch.log1p(output.abs())

    def quarters(self, image, prior):
        """(N,4,H/2,W/2): o, the four pixels of each square of two by two."""
        x = self.stem(image)
        features = {2: x}
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in TAPS:
                features[TAPS[number]] = x
        x = self.wide(x) * torch.sigmoid(self.pooled(x.mean((2, 3), keepdim=True)))
        x = self.stages[0](x, features[8]) + self.prior(prior)
        x = self.stages[2](self.stages[1](x, features[4]), features[2])
        return self.head(x)

    @staticmethod
    def probability(output):
        """The sigmoid of the logit of o, which is 1/2 + o / (4 + 2 |o|): no logarithm and no exponential."""
        return 0.5 + output / (4.0 + 2.0 * output.abs())


class Stage(nn.Module):
    """One step up: what is below enlarged, the skip connection weighted by channel and added, both refined.

    The file enlarges before its 1x1 convolution. The two commute, and so do enlarging and the mean: here both are
    taken of the small map, a quarter of the work for the same numbers.
    """

    def __init__(self, inputs, width):
        super().__init__()
        self.up = ConvBN(inputs, width, activation=None)
        self.squeeze = nn.Conv2d(width, width, 1)
        self.expand = nn.Conv2d(width, width, 1)
        self.mix = ConvBN(width, width)
        self.refine = ConvBN(width, width, 3, groups=width)

    def forward(self, x, skip):
        """(N,width,2H,2W) of features (N,inputs,H,W) and (N,width,2H,2W)."""
        x = self.up(x)
        pooled = x.mean((2, 3), keepdim=True) + skip.mean((2, 3), keepdim=True)
        weight = torch.sigmoid(self.expand(F.relu(self.squeeze(pooled))))
        x = self.mix(skip * weight + upsample(x))
        return x + self.refine(x)


def convolutions(network):
    """The convolutions of Google's file, in the file's order: ConvBN, or nn.Conv2d with a bias."""
    for layer in (network.stem, *network.blocks):
        if isinstance(layer, ConvBN):
            yield layer
            continue
        yield from (layer.expand, layer.depthwise)
        if isinstance(layer.excite, SqueezeExcite):
            yield from (layer.excite.reduce, layer.excite.expand)
        yield layer.project
    yield from (network.wide, network.pooled)
    for stage in network.stages:
        yield from (stage.up, stage.squeeze, stage.expand, stage.mix, stage.refine)
    yield network.head


def read_file(path):
    """[(weight (O,I,H,W), bias (O,))] of every convolution of a TFLite file, in its order; the head's as a 1x1 one."""
    interpreter = Interpreter(str(path), num_threads=1)
    operations = interpreter._get_ops_details()
    stored_as = {int(o["outputs"][0]): int(o["inputs"][0]) for o in operations if o["op_name"] == "DEQUANTIZE"}

    def constant(index):
        return interpreter.get_tensor(stored_as.get(int(index), int(index))).astype(np.float32)

    found = []
    for operation in operations:
        name, inputs = operation["op_name"], operation["inputs"]
        if name == "CONV_2D":
            found.append((constant(inputs[1]).transpose(0, 3, 1, 2), constant(inputs[2])))
        elif name == "DEPTHWISE_CONV_2D":
            found.append((constant(inputs[1]).transpose(3, 0, 1, 2), constant(inputs[2])))
        elif name == "Convolution2DTransposeBias":
            # 2x2 with stride 2: its four taps are four outputs of a 1x1 convolution.
            weight = constant(inputs[1])
            found.append((weight.reshape(4, -1)[:, :, None, None], np.repeat(constant(inputs[2]), 4)))
    return found


@torch.no_grad()
def load_file(network, path):
    """Fill a `Selfie` with the weights of Google's file; ValueError for a file of other layers."""
    layers, arrays = list(convolutions(network)), read_file(path)
    if len(layers) != len(arrays):
        raise ValueError(f"{path} has {len(arrays)} convolutions, expected are the {len(layers)} of MediaPipe's selfie")
    for number, (layer, (weight, bias)) in enumerate(zip(layers, arrays, strict=True)):
        conv = layer.conv if isinstance(layer, ConvBN) else layer
        if tuple(conv.weight.shape) != weight.shape:
            came, expected = weight.shape, tuple(conv.weight.shape)
            raise ValueError(f"{path}: convolution {number} has weights of {came}, expected are {expected}")
        conv.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        if isinstance(layer, ConvBN):
            layer.bn.running_mean.zero_()
            layer.bn.running_var.fill_(1.0 - layer.bn.eps)
            layer.bn.weight.fill_(1.0)
            layer.bn.bias.copy_(torch.from_numpy(bias))
        else:
            conv.bias.copy_(torch.from_numpy(bias))
    return network


def is_folded(network):
    """Whether a `Selfie` has the batch normalisation of its file still folded into its kernels."""
    return all(bool((layer.bn.running_mean == 0).all()) for layer in network.modules() if isinstance(layer, ConvBN))


@torch.no_grad()
def normalise(network, batches):
    """Give every batch normalisation the statistics of `batches` [(image, prior)] and every kernel the length 1.

    The network computes what it did. The file's batch normalisation is folded into kernels whose rows are 0.01 to 77
    long; trained like that, the first hundred steps destroy more than the next thousand repair.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, ConvBN)]
    means, squares = [0.0] * len(layers), [0.0] * len(layers)

    def observe(number):
        def add(layer, inputs, output):
            means[number] = means[number] + output.double().mean((0, 2, 3)) / len(batches)
            squares[number] = squares[number] + output.double().square().mean((0, 2, 3)) / len(batches)

        return add

    hooks = [layer.conv.register_forward_hook(observe(number)) for number, layer in enumerate(layers)]
    network.eval()
    for image, prior in batches:
        network(image, prior)
    for hook in hooks:
        hook.remove()
    for layer, mean, square in zip(layers, means, squares, strict=True):
        bn = layer.bn
        gain = bn.weight / (bn.running_var + bn.eps).sqrt()
        shift = bn.bias - bn.running_mean * gain
        mean, variance = mean.float(), (square - mean**2).clamp_min(0).float()
        length = layer.conv.weight.flatten(1).norm(dim=1)
        # A channel that never changes keeps its kernel: there is nothing to measure it by.
        length = torch.where((variance > 1e-8) & (length > 1e-6), length, torch.ones_like(length))
        layer.conv.weight.div_(length[:, None, None, None])
        bn.running_mean.copy_(mean / length)
        bn.running_var.copy_(variance / length**2)
        bn.weight.copy_(gain * length * (bn.running_var + bn.eps).sqrt())
        bn.bias.copy_(shift + mean * gain)


def load_arrays(network, arrays):
    """Fill a `Selfie` with {name: array} named by numbers of the file's tensors: `conv.3.weight`, `norm.3.bias`.

    Trained weights have been kept in this form; their batch normalisation has an epsilon of 1e-5.
    """
    numbers = sorted({int(name.split(".")[1]) for name in arrays if name.startswith("conv.")})
    state = network.state_dict()
    names = {id(layer): name for name, layer in network.named_modules()}
    for number, layer in zip(numbers, convolutions(network), strict=True):
        name, bare = names[id(layer)], not isinstance(layer, ConvBN)
        state[f"{name}.weight" if bare else f"{name}.conv.weight"] = torch.from_numpy(arrays[f"conv.{number}.weight"])
        if bare:
            state[f"{name}.bias"] = torch.from_numpy(arrays[f"conv.{number}.bias"])
            continue
        for key in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.bn.{key}"] = torch.from_numpy(arrays[f"norm.{number}.{key}"])
        variance = state[f"{name}.bn.running_var"]
        state[f"{name}.bn.weight"] = state[f"{name}.bn.weight"] * ((variance + layer.bn.eps) / (variance + 1e-5)).sqrt()
    for key in ("weight", "bias"):
        state[f"prior.{key}"] = torch.from_numpy(arrays[f"prior.{key}"])
    network.load_state_dict(state)
    return network


def load(path):
    """A `Selfie` with the weights of a TFLite file of Google's, or of an `.npz` of its tensors' numbers."""
    network = Selfie().eval()
    if Path(path).suffix == ".npz":
        with np.load(path) as arrays:
            return load_arrays(network, dict(arrays))
    return load_file(network, path)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="selfie_segmentation.tflite, selfie_segmentation_landscape.tflite")
    parser.add_argument("target", type=Path, help="weights to write, for training.train --init")
    arguments = parser.parse_args()
    torch.save(load(arguments.source).state_dict(), arguments.target)


if __name__ == "__main__":
    main()
