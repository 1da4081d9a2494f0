"""PortraitNet (Zhang et al., Computers & Graphics 80, 2019), built anew from the paper as a peer for Table I.

MobileNetV2 1.0 to stride 32, and a decoder of transition modules and transposed convolutions back to full size (section
3.1). Its auxiliary boundary head and its consistency loss are parts of its training, not of its inference; here it is
trained with the loss of every other row.
"""

from torch import nn

from training.layers import ConvBN, InvertedResidual

# Expansion, output channels, repeats, stride of the first (arXiv:1801.04381, Table 2, width 1).
STAGES = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
TAPS = (1, 2, 4, 6)
"""Stages whose output is the last at its stride: 4, 8, 16, 32."""

DECODER = (96, 32, 24, 16, 8)


class PortraitNet(nn.Module):
    """The U-shaped network; no prior."""

    takes_prior = False
    multiple = 32

    def __init__(self):
        super().__init__()
        self.stem = ConvBN(3, 32, 3, 2)
        stages, inputs = [], 32
        for expansion, outputs, repeats, first in STAGES:
            blocks = []
            for repeat in range(repeats):
                stride = 1 if repeat else first
                blocks.append(InvertedResidual(inputs, outputs, stride, expansion * inputs, activation="relu"))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        widths = (320, *DECODER)
        self.transitions = nn.ModuleList(Transition(a, b) for a, b in zip(widths, DECODER, strict=False))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(c, c, 4, 2, 1, bias=False) for c in DECODER)
        self.head = nn.Conv2d(8, 1, 3, 1, 1, bias=False)

    def forward(self, image):
        """Logits (N,1,H,W)."""
        skips, x = [], self.stem(image)
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in TAPS:
                skips.append(x)
        skips.pop()
        for transition, up in zip(self.transitions, self.ups, strict=True):
            x = up(transition(x))
            if skips:
                x = x + skips.pop()
        return self.head(x)


class Transition(nn.Module):
    """Two depthwise separable convolutions beside a 1x1 convolution (the D block of Fig. 2)."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.block = nn.Sequential(
            ConvBN(inputs, inputs, 3, groups=inputs),
            ConvBN(inputs, outputs),
            ConvBN(outputs, outputs, 3, groups=outputs),
            ConvBN(outputs, outputs, activation=None),
        )
        self.side = ConvBN(inputs, outputs, activation=None)
        self.act = nn.ReLU()

    def forward(self, x):
        """(N,inputs,H,W) -> (N,outputs,H,W)."""
        return self.act(self.block(x) + self.side(x))
