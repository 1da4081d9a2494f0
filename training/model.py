"""The network of the paper: two inputs, encoder, Tiny FFM, prior branch, FRM and the 16x16 transposed convolution.

Source: D. Pirshtuk, "Low-latency Human Portrait Segmentation Network Optimized for CPU Inference", section II and
figures 1 to 4.
The figures give the total of the decoder's parameters, not its split; FC ratio 1, the third 1x1 convolution of the
fusion module and the widths 8/16/16 of the prior branch are the choice that gives 0.138 M parameters and 91 MFLOPs.
"""

import math

import keras
from keras import layers

from training.encoders import ENCODERS
from training.layers import conv_bn, dsc

DIRTY_MASK = "dirty_mask"
HEAD = "head"


def build(encoder="pplcnet", size=224, prior=True):
    """A Keras model {image: (N,size,size,3) RGB in 0..1, prior: (N,size,size,1) in 0..1} -> (N,size,size,1) in 0..1.

    `size` is a multiple of 16. Without `prior` the model takes the image alone and the prior branch is absent.
    """
    if size % 16:
        raise ValueError(f"size is {size}; expected a multiple of 16, the stride of the encoder")
    image = keras.Input((size, size, 3), name="image")
    normalised = layers.Rescaling(2.0, -1.0, name="normalise")(image)
    skip, end = ENCODERS[encoder](normalised)
    x = tiny_ffm(skip, end)
    inputs = {"image": image}
    if prior:
        inputs["prior"] = keras.Input((size, size, 1), name="prior")
        x = layers.Concatenate(name="with_prior")([x, prior_branch(inputs["prior"])])
    x = dsc(x, 32, name="frm")
    x = layers.Conv2D(1, 1, name=DIRTY_MASK)(x)
    x = layers.Conv2DTranspose(1, 16, 8, "same", activation="sigmoid", name=HEAD)(x)
    return keras.Model(inputs, x, name=f"portrait_{encoder}")


def tiny_ffm(skip, end):
    """Tiny Feature Fusion Module (Fig. 3): both scales squeezed to 32 channels, fused, weighted by channel, added."""
    skip = conv_bn(skip, 32, 1, 1, "relu", name="ffm_skip")
    end = conv_bn(end, 32, 1, 1, "relu", name="ffm_end")
    end = layers.UpSampling2D(2, interpolation="bilinear", name="ffm_up")(end)
    x = layers.Concatenate(name="ffm_concat")([skip, end])
    x = conv_bn(x, 32, 1, 1, "relu", name="ffm_fuse")
    weight = layers.GlobalAveragePooling2D(keepdims=True, name="ffm_gap")(x)
    weight = layers.Dense(32, activation="relu", name="ffm_fc1")(weight)
    weight = layers.Dense(32, activation="sigmoid", name="ffm_fc2")(weight)
    return layers.Add(name="ffm_add")([x, layers.Multiply(name="ffm_mul")([x, weight])])


def prior_branch(prior):
    """The previous mask at stride 8: conv3x3 s2 to 8, DepthSepConv s2 to 16, DepthSepConv s2 to 16."""
    x = conv_bn(prior, 8, 3, 2, "hard_swish", name="prior_stem")
    x = dsc(x, 16, stride=2, name="prior_0")
    return dsc(x, 16, stride=2, name="prior_1")


def count_macs(model):
    """Multiply-accumulates of convolutions and dense layers for one picture (BN folded, activations not counted)."""
    total = 0
    for layer in model.layers:
        kind = type(layer).__name__
        if kind in ("Conv2D", "DepthwiseConv2D"):
            _, height, width, _ = layer.output.shape
            total += height * width * math.prod(layer.kernel.shape)
        elif kind == "Conv2DTranspose":
            _, height, width, _ = layer.input.shape
            total += height * width * math.prod(layer.kernel.shape)
        elif kind == "Dense":
            total += math.prod(layer.kernel.shape)
    return total
