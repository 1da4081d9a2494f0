"""The networks: what the paper describes, and what the product ships.

Every network takes a picture (N,3,H,W) in 0..1 and, if `takes_prior`, the previous mask (N,1,H,W) in 0..1, and returns
logits (N,1,H,W); the sigmoid of a logit is the probability that the pixel belongs to a person.
"""

import functools
import math

import torch
from torch import nn
from torch.nn import functional as F

from training.encoders import ENCODERS
from training.layers import ConvBN, DepthSepConv, upsample
from training.portraitnet import PortraitNet
from training.selfie import Selfie
from training.sinet import SINet


class Paper(nn.Module):
    """The paper's network: an encoder, the Tiny FFM, the prior branch, the FRM and the 16x16 transposed convolution.

    Source: D. Pirshtuk, "Low-latency Human Portrait Segmentation Network Optimized for CPU Inference", section II and
    figures 1 to 4. The figures give the total of the decoder's parameters, not its split; FC ratio 1, the third 1x1
    convolution of the fusion module and the widths 8/16/16 of the prior branch give 0.138 M parameters and 91 MFLOPs.
    """

    multiple = 16

    def __init__(self, encoder="pplcnet", prior=True):
        super().__init__()
        self.takes_prior = prior
        self.encoder = ENCODERS[encoder]()
        self.ffm = TinyFFM(self.encoder.channels[8], self.encoder.channels[16], 32)
        if prior:
            stem = ConvBN(1, 8, 3, 2, "hard_swish")
            self.prior = nn.Sequential(stem, DepthSepConv(8, 16, stride=2), DepthSepConv(16, 16, stride=2))
        self.frm = DepthSepConv(48 if prior else 32, 32)
        self.dirty_mask = nn.Conv2d(32, 1, 1)
        self.head = nn.ConvTranspose2d(1, 1, 16, 8, 4)

    def forward(self, image, prior=None):
        """Logits (N,1,H,W)."""
        features = self.encoder(image)
        x = self.ffm(features[8], features[16])
        if self.takes_prior:
            x = torch.cat([x, self.prior(prior)], 1)
        return self.head(self.dirty_mask(self.frm(x)))


class Portrait(nn.Module):
    """The shipped network: the paper's two inputs, fusion and refinement at stride 8, then the contour at 4 and 2.

    Against the paper: MobileNetV2-0.35x from ImageNet with its stride-32 stage for context and without two residual
    blocks that cost more than they give; a prior branch of one 8x8 convolution; features of stride 4 and 2 added on
    the way up instead of the 16x16 transposed convolution, which cannot draw what a 28x28 grid has lost.
    """

    takes_prior = True
    multiple = 16

    def __init__(self, encoder="mobilenetv2_slim", at4=16, at2=8):
        super().__init__()
        self.encoder = ENCODERS[encoder]()
        channels = self.encoder.channels
        self.deep = ConvBN(channels[32], 32)
        self.end = ConvBN(channels[16], 32)
        self.ffm = TinyFFM(channels[8], 32, 32)
        self.prior = nn.Sequential(nn.Conv2d(1, 16, 8, 8), nn.ReLU())
        self.frm = DepthSepConv(48, 32, activation="relu")
        self.up4 = ConvBN(32, at4, activation=None)
        self.skip4 = ConvBN(channels[4], at4, activation=None)
        self.refine4 = DepthSepConv(at4, at4, activation="relu")
        self.up2 = ConvBN(at4, at2, activation=None)
        self.skip2 = ConvBN(channels[2], at2, activation=None)
        self.head = nn.Conv2d(at2, 4, 1)

    def forward(self, image, prior):
        """Logits (N,1,H,W)."""
        features = self.encoder(image)
        end = self.end(features[16])
        # Stride 32 of 144 rows is five of nine: enlarged to a size, not by a factor.
        end = end + F.interpolate(self.deep(features[32]), end.shape[2:], mode="bilinear", align_corners=False)
        x = self.frm(torch.cat([self.ffm(features[8], end), self.prior(prior)], 1))
        x = self.refine4(F.relu(upsample(self.up4(x)) + self.skip4(features[4])))
        x = F.relu(upsample(self.up2(x)) + self.skip2(features[2]))
        return F.pixel_shuffle(self.head(x), 2)


class TinyFFM(nn.Module):
    """Tiny Feature Fusion Module (Fig. 3): both scales squeezed, fused, weighted by channel, added."""

    def __init__(self, skip, end, width):
        super().__init__()
        self.skip = ConvBN(skip, width)
        self.end = ConvBN(end, width)
        self.fuse = ConvBN(2 * width, width)
        self.fc1 = nn.Conv2d(width, width, 1)
        self.fc2 = nn.Conv2d(width, width, 1)

    def forward(self, skip, end):
        """(N,width,H,W) of features (N,skip,H,W) and (N,end,H/2,W/2)."""
        x = self.fuse(torch.cat([self.skip(skip), upsample(self.end(end))], 1))
        weight = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))
        return x + x * weight


NETWORKS = {
    "selfie": Selfie,
    "portrait": Portrait,
    "paper": Paper,
    "paper_without_prior": functools.partial(Paper, prior=False),
    "mobilenetv3_small": functools.partial(Paper, "mobilenetv3_small"),
    "mobilenetv2": functools.partial(Paper, "mobilenetv2"),
    "efficientnetb0": functools.partial(Paper, "efficientnetb0"),
    "sinet": SINet,
    "portraitnet": PortraitNet,
}


def build(name):
    """A network of NETWORKS by name, in channels_last memory."""
    return NETWORKS[name]().to(memory_format=torch.channels_last)


def count_parameters(network):
    """Numbers the network holds, the running statistics of its normalisations included, as Keras counts."""
    buffers = (value for name, value in network.named_buffers() if name.endswith(("running_mean", "running_var")))
    return sum(value.numel() for value in (*network.parameters(), *buffers))


def count_macs(network, height, width):
    """Multiply-accumulates of convolutions for one picture (BN folded, activations not counted)."""
    total = 0

    def count(layer, inputs, output):
        nonlocal total
        place = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        total += math.prod(place.shape[2:]) * layer.weight.numel()

    hooks = [
        layer.register_forward_hook(count)
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    ]
    inputs = [torch.zeros(1, 3, height, width)] + ([torch.zeros(1, 1, height, width)] if network.takes_prior else [])
    training = network.training
    with torch.no_grad():
        network.eval()(*inputs)
    network.train(training)
    for hook in hooks:
        hook.remove()
    return total
