"""Encoders. Each gives the features of a picture (N,3,H,W) in 0..1 by stride: {2: ..., 4: ..., 8: ..., 16: ...}.

`channels` says how many channels each stride has. There is no normalisation layer: it would cost 5 % of the network's
time, and the first batch normalisation does its work.
"""

import functools

import numpy as np
import torch
from torch import nn

from training.layers import ConvBN, DepthSepConv, InvertedResidual, SqueezeExcite


class Encoder(nn.Module):
    """A chain of blocks; `taps` says after which block (by number) the features of a stride are taken."""

    def __init__(self, blocks, taps, channels):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.taps = taps
        self.channels = channels

    def forward(self, image):
        """{stride: (N,C,H/stride,W/stride)} for every stride of `channels`."""
        features = {}
        x = image
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.taps:
                features[self.taps[number]] = x
        return features


def pplcnet():
    """PP-LCNet-0.5x up to and with blocks5, without SE (arXiv:2109.15099, Table 1): 123,440 parameters."""
    blocks = [
        ConvBN(3, 8, 3, 2, "hard_swish"),
        DepthSepConv(8, 16),
        DepthSepConv(16, 32, stride=2),
        DepthSepConv(32, 32),
        DepthSepConv(32, 64, stride=2),
        DepthSepConv(64, 64),
        DepthSepConv(64, 128, stride=2),
        *(DepthSepConv(128, 128, kernel=5) for _ in range(5)),
    ]
    return Encoder(blocks, {1: 2, 3: 4, 5: 8, 11: 16}, {2: 16, 4: 32, 8: 64, 16: 128})


# Output channels and stride of the inverted residual blocks (arXiv:1801.04381, Table 2, width 0.35). Block 0 does not
# expand, the others do by 6.
MOBILENETV2 = [
    (8, 1), (8, 2), (8, 1), (16, 2), (16, 1), (16, 1), (24, 2), (24, 1), (24, 1), (24, 1), (32, 1), (32, 1), (32, 1),
    (56, 2), (56, 1), (56, 1),
]  # fmt: skip


def mobilenetv2(deepest=16, without=()):
    """MobileNetV2-0.35x with the padding of Keras Applications, up to stride 16 (block 12) or 32 (block 15).

    `without` leaves out residual blocks by number: `load_imagenet` knows them still.
    """
    blocks, taps, channels, stride = [ConvBN(3, 16, 3, 2, "relu6", end=True)], {}, {}, 2
    inputs = 16
    for number, (outputs, step) in enumerate(MOBILENETV2):
        stride *= step
        if stride > deepest:
            break
        hidden = inputs if number == 0 else 6 * inputs
        block = InvertedResidual(inputs, outputs, step, hidden, end=True)
        blocks.append(nn.Identity() if number in without else block)
        taps = {tap: at for tap, at in taps.items() if at != stride} | {number + 1: stride}
        channels[stride] = inputs = outputs
    return Encoder(blocks, taps, channels)


# Kernel, hidden channels, output channels, squeeze-and-excite, activation, stride (arXiv:1905.02244, Table 2).
MOBILENETV3_SMALL = [
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hard_swish", 2),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 120, 48, True, "hard_swish", 1),
    (5, 144, 48, True, "hard_swish", 1),
]


def mobilenetv3_small():
    """MobileNetV3-Small 1x up to its last block at stride 16: 24 channels at stride 8, 48 at stride 16."""
    blocks, inputs = [ConvBN(3, 16, 3, 2, "hard_swish")], 16
    for kernel, hidden, outputs, excited, activation, stride in MOBILENETV3_SMALL:
        reduced = max(8, (hidden // 4 + 4) // 8 * 8)
        excite = SqueezeExcite(hidden, reduced, "relu", nn.Hardsigmoid) if excited else None
        blocks.append(InvertedResidual(inputs, outputs, stride, hidden, kernel, activation, excite))
        inputs = outputs
    return Encoder(blocks, {0: 2, 1: 4, 3: 8, 8: 16}, {2: 16, 4: 16, 8: 24, 16: 48})


# Expansion, output channels, repeats, stride of the first, kernel (arXiv:1905.11946, Table 1, stages 2 to 5).
EFFICIENTNETB0 = [(1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3)]


def efficientnetb0():
    """EfficientNetB0 up to block 4c: 40 channels at stride 8, 80 at stride 16."""
    blocks, inputs = [ConvBN(3, 32, 3, 2, "swish")], 32
    for expansion, outputs, repeats, first, kernel in EFFICIENTNETB0:
        for repeat in range(repeats):
            hidden = expansion * inputs
            excite = SqueezeExcite(hidden, max(1, inputs // 4), "swish", nn.Sigmoid)
            stride = 1 if repeat else first
            blocks.append(InvertedResidual(inputs, outputs, stride, hidden, kernel, "swish", excite))
            inputs = outputs
    return Encoder(blocks, {1: 2, 3: 4, 5: 8, 8: 16}, {2: 16, 4: 24, 8: 40, 16: 80})


ENCODERS = {
    "pplcnet": pplcnet,
    "mobilenetv2": mobilenetv2,
    "mobilenetv3_small": mobilenetv3_small,
    "efficientnetb0": efficientnetb0,
    "mobilenetv2_slim": functools.partial(mobilenetv2, deepest=32, without=(2, 12)),
}


def load_mobilenetv2_imagenet(encoder, path):
    """Fill an encoder of `mobilenetv2` from the ImageNet file at `path` (.npz in Keras' layer order).

    Returns the number of convolutions filled. The file was trained on pictures in -1..1; the first layer is rewritten
    for 0..1. Raises ValueError when a layer is missing or its shape does not fit.
    """
    source = _KerasLayers(path)
    filled = 0
    for number, block in enumerate(encoder.blocks):
        for layer in _convolutions(number, block):
            filled += source.fill(layer)
    _take_unit_range(encoder.blocks[0])
    return filled


def _convolutions(number, block):
    """The ConvBN layers of a block in the file's order; the name of its kind for each that the network leaves out."""
    if number == 0:
        return [block]
    if isinstance(block, nn.Identity):
        return ["conv2d", "depthwise_conv2d", "conv2d"]
    return [layer for layer in (block.expand, block.depthwise, block.project) if isinstance(layer, ConvBN)]


class _KerasLayers:
    """Reads conv2d, conv2d_1, ..., depthwise_conv2d, ..., batch_normalization, ... one after the other."""

    def __init__(self, path):
        self._path, self._groups = path, {}
        arrays = np.load(path, allow_pickle=False)
        for key in arrays.files:
            layer, _, variable = key.partition("|")
            self._groups.setdefault(layer, {})[variable.split("|")[-1].split(":")[0]] = arrays[key]
        self._next = {"conv2d": 0, "depthwise_conv2d": 0, "batch_normalization": 0}

    def _take(self, kind):
        index = self._next[kind]
        self._next[kind] += 1
        name = f"{kind}_{index}" if index else kind
        if name not in self._groups:
            raise ValueError(f"{self._path} has no layer {name}; expected are those of Keras' MobileNetV2, width 0.35")
        return self._groups[name]

    def fill(self, layer):
        """Copy the next convolution and its normalisation into `layer`; skip them where it is only a kind's name."""
        if isinstance(layer, str):
            self._take(layer)
            self._take("batch_normalization")
            return 0
        depthwise = layer.conv.groups > 1
        group = self._take("depthwise_conv2d" if depthwise else "conv2d")
        kernel = group["depthwise_kernel"].transpose(2, 3, 0, 1) if depthwise else group["kernel"].transpose(3, 2, 0, 1)
        norm = self._take("batch_normalization")
        pairs = {layer.conv.weight: kernel, layer.bn.weight: norm["gamma"], layer.bn.bias: norm["beta"]}
        pairs |= {layer.bn.running_mean: norm["moving_mean"], layer.bn.running_var: norm["moving_variance"]}
        for target, value in pairs.items():
            if tuple(target.shape) != value.shape:
                raise ValueError(f"the file has {value.shape} where the model wants {tuple(target.shape)}")
            target.data.copy_(torch.from_numpy(np.ascontiguousarray(value)))
        return 1


def _take_unit_range(stem):
    """Rewrite a first layer trained on 2x - 1 for x: twice the kernel, and the mean without the kernel's sum."""
    with torch.no_grad():
        stem.bn.running_mean += stem.conv.weight.sum((1, 2, 3))
        stem.conv.weight *= 2
