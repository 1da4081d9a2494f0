"""Building blocks that the encoders and the decoder share."""

import keras
from keras import layers


def conv_bn(x, filters, kernel, stride=1, activation=None, name=""):
    """Convolution without bias, batch normalisation, optional activation.

    Stride 2 pads symmetrically: Keras' "same" would pad (0, 1) there and shift every feature by half a pixel against
    weights trained elsewhere (PP-LCNet pads 1 on each side).
    """
    padding = "same"
    if stride == 2:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
        padding = "valid"
    x = layers.Conv2D(filters, kernel, stride, padding, use_bias=False, name=f"{name}_conv")(x)
    return _finish(x, activation, name)


def depthwise_bn(x, kernel, stride=1, activation=None, name=""):
    """Depthwise convolution without bias, batch normalisation, optional activation; pads like `conv_bn`."""
    padding = "same"
    if stride == 2:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
        padding = "valid"
    x = layers.DepthwiseConv2D(kernel, stride, padding, use_bias=False, name=f"{name}_conv")(x)
    return _finish(x, activation, name)


def dsc(x, filters, kernel=3, stride=1, name=""):
    """DepthSepConv of the paper (Fig. 1): depthwise, BN, h-swish, 1x1, BN, h-swish."""
    x = depthwise_bn(x, kernel, stride, "hard_swish", name=f"{name}_dw")
    return conv_bn(x, filters, 1, 1, "hard_swish", name=f"{name}_pw")


def _finish(x, activation, name):
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    if activation:
        x = layers.Activation(keras.activations.get(activation), name=f"{name}_act")(x)
    return x
