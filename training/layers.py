"""Building blocks that encoders and decoders share. Features are (N,C,H,W)."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hard_swish": nn.Hardswish, "swish": nn.SiLU, None: nn.Identity}


class ConvBN(nn.Module):
    """Convolution without bias, batch normalisation, activation; the size is the input's divided by `stride`.

    `end` pads stride-2 layers of an even size below and at the right only, as the ImageNet weights of Keras
    Applications were trained; otherwise padding is symmetric.
    """

    def __init__(self, inputs, outputs, kernel=1, stride=1, activation="relu", groups=1, end=False):
        super().__init__()
        self.end = kernel // 2 if end and stride == 2 else 0
        padding = 0 if self.end else kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.05)
        self.act = ACTIVATIONS[activation]()

    def forward(self, x):
        """(N,inputs,H,W) -> (N,outputs,H/stride,W/stride)."""
        if self.end:
            rows, columns = (self.end - 1 + side % 2 for side in x.shape[2:])
            x = F.pad(x, (columns, self.end, rows, self.end))
        return self.act(self.bn(self._convolved(x)))

    def _convolved(self, x):
        # The backward pass of these in bfloat16 is slower than everything else of a step together.
        if self.conv.groups > 1 and self.conv.stride[0] > 1 and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return self.conv(x.float())
        return self.conv(x)


class DepthSepConv(nn.Sequential):
    """DepthSepConv of the paper (Fig. 1): depthwise, BN, activation, 1x1, BN, activation."""

    def __init__(self, inputs, outputs, kernel=3, stride=1, activation="hard_swish"):
        super().__init__(
            ConvBN(inputs, inputs, kernel, stride, activation, groups=inputs),
            ConvBN(inputs, outputs, 1, 1, activation),
        )


class SqueezeExcite(nn.Module):
    """Channels weighted by what the whole picture holds (arXiv:1709.01507)."""

    def __init__(self, channels, reduced, activation, gate):
        super().__init__()
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.act = ACTIVATIONS[activation]()
        self.expand = nn.Conv2d(reduced, channels, 1)
        self.gate = gate()

    def forward(self, x):
        """The same shape."""
        weight = self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * self.gate(weight)


class InvertedResidual(nn.Module):
    """Expand, depthwise, optional squeeze-and-excite, project; added to the input where shapes allow.

    arXiv:1801.04381 Fig. 4; with squeeze-and-excite arXiv:1905.02244 Fig. 4. Where `hidden` equals `inputs` the first
    1x1 convolution is left out, unless `expand` asks for it.
    """

    def __init__(
        self, inputs, outputs, stride, hidden, kernel=3, activation="relu6", excite=None, end=False, expand=False
    ):
        super().__init__()
        expand = expand or hidden != inputs
        self.expand = ConvBN(inputs, hidden, 1, 1, activation) if expand else nn.Identity()
        self.depthwise = ConvBN(hidden, hidden, kernel, stride, activation, groups=hidden, end=end)
        self.excite = excite or nn.Identity()
        self.project = ConvBN(hidden, outputs, 1, 1, None)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        """(N,inputs,H,W) -> (N,outputs,H/stride,W/stride)."""
        y = self.project(self.excite(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


def upsample(x, factor=2):
    """Bilinear, half-pixel centres: XNNPACK takes it."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def folded(network):
    """The same network without batch normalisation: it is in the kernels."""
    for layer in network.modules():
        if isinstance(layer, ConvBN) and not isinstance(layer.bn, nn.Identity):
            layer.conv, layer.bn = fuse_conv_bn_eval(layer.conv.eval(), layer.bn.eval()), nn.Identity()
    return network
