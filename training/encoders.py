"""Encoders. Each takes the normalised picture and returns its stride-8 and stride-16 features (skip, end)."""

import numpy as np
from keras import layers

from training.layers import conv_bn, depthwise_bn, dsc


def pplcnet(x):
    """PP-LCNet-0.5x up to and with blocks5, without SE (arXiv:2109.15099, Table 1): 123,440 parameters."""
    x = conv_bn(x, 8, 3, 2, "hard_swish", name="stem")
    x = dsc(x, 16, name="blocks2_0")
    x = dsc(x, 32, stride=2, name="blocks3_0")
    x = dsc(x, 32, name="blocks3_1")
    x = dsc(x, 64, stride=2, name="blocks4_0")
    skip = x = dsc(x, 64, name="blocks4_1")
    x = dsc(x, 128, stride=2, name="blocks5_0")
    for i in range(1, 6):
        x = dsc(x, 128, kernel=5, name=f"blocks5_{i}")
    return skip, x


# Output channels and stride of every inverted residual block up to block 12 (arXiv:1801.04381, Table 2, width 0.35).
MOBILENETV2_BLOCKS = [
    (8, 1), (8, 2), (8, 1), (16, 2), (16, 1), (16, 1), (24, 2), (24, 1), (24, 1), (24, 1), (32, 1), (32, 1), (32, 1),
]  # fmt: skip


def mobilenetv2(x):
    """MobileNetV2-0.35x up to block 12 (arXiv:1801.04381): 16 channels at stride 8, 32 at stride 16.

    Stride-2 layers pad below and at the right only, as the ImageNet weights of Keras Applications were trained.
    """
    x = layers.Conv2D(16, 3, 2, "same", use_bias=False, name="stem_conv")(x)
    x = layers.BatchNormalization(epsilon=1e-3, name="stem_bn")(x)
    x = layers.ReLU(6.0, name="stem_act")(x)
    skip = None
    for i, (filters, stride) in enumerate(MOBILENETV2_BLOCKS):
        x = _inverted_residual(x, filters, stride, expand=i > 0, name=f"block_{i}")
        if i == 5:
            skip = x
    return skip, x


def _inverted_residual(x, filters, stride, expand, name):
    block_input = x
    if expand:
        x = conv_bn(x, 6 * x.shape[-1], 1, 1, "relu6", name=f"{name}_expand")
    if stride == 2:
        x = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x)
        x = layers.DepthwiseConv2D(3, 2, "valid", use_bias=False, name=f"{name}_dw_conv")(x)
        x = layers.BatchNormalization(name=f"{name}_dw_bn")(x)
        x = layers.ReLU(6.0, name=f"{name}_dw_act")(x)
    else:
        x = depthwise_bn(x, 3, 1, "relu6", name=f"{name}_dw")
    x = conv_bn(x, filters, 1, 1, None, name=f"{name}_project")
    if stride == 1 and block_input.shape[-1] == filters:
        x = layers.Add(name=f"{name}_add")([block_input, x])
    return x


def load_mobilenetv2_imagenet(model, path):
    """Fill the encoder of `model` from the ImageNet file at `path` (.npz in Keras' layer order).

    Returns the number of layers filled. Raises ValueError when a shape does not fit.
    """
    weights = np.load(path, allow_pickle=False)
    groups = {}
    for key in weights.files:
        layer, _, variable = key.partition("|")
        groups.setdefault(layer, {})[variable.split("|")[-1].split(":")[0]] = weights[key]
    counters = {"conv2d": 0, "depthwise_conv2d": 0, "batch_normalization": 0}
    order = {
        "Conv2D": ("conv2d", ["kernel"]),
        "DepthwiseConv2D": ("depthwise_conv2d", ["depthwise_kernel"]),
        "BatchNormalization": ("batch_normalization", ["gamma", "beta", "moving_mean", "moving_variance"]),
    }
    filled = 0
    for layer in model.layers:
        if not layer.name.startswith(("stem_", "block_")) or type(layer).__name__ not in order:
            continue
        prefix, names = order[type(layer).__name__]
        index = counters[prefix]
        counters[prefix] += 1
        group = groups[f"{prefix}_{index}" if index else prefix]
        values = [group[name] for name in names]
        for value, variable in zip(values, layer.weights, strict=True):
            if value.shape != tuple(variable.shape):
                raise ValueError(f"{layer.name}: the file has {value.shape}, the model wants {tuple(variable.shape)}")
        layer.set_weights(values)
        filled += 1
    return filled


ENCODERS = {"pplcnet": pplcnet, "mobilenetv2": mobilenetv2}
