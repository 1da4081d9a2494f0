"""SINet (Park et al., WACV 2020, arXiv:1911.09099), built anew from the paper as a peer for Table I.

Channel counts and the kernel and pooling of every S2 block are those of its authors' release: 86,910 parameters. The
mask is the difference of its two class maps, which is their softmax.
"""

import torch
from torch import nn
from torch.nn import functional as F

# (kernel, pooling) of both S2 blocks of every module (Table 1): two modules at stride 4, eight at stride 8.
STRIDE_4 = [((3, 1), (5, 1)), ((3, 1), (3, 1))]
STRIDE_8 = [
    ((3, 1), (5, 1)), ((3, 1), (3, 1)), ((5, 1), (3, 2)), ((5, 2), (3, 4)),
    ((3, 1), (3, 1)), ((5, 1), (5, 1)), ((3, 2), (3, 4)), ((3, 1), (5, 2)),
]  # fmt: skip


class SINet(nn.Module):
    """The encoder of spatial squeeze modules and the information blocking decoder; no prior."""

    takes_prior = False
    multiple = 32

    def __init__(self):
        super().__init__()
        self.stem = _conv(3, 12, 3, 2)
        self.enter4, self.modules4, self.leave4 = Excited(12, 16, 12), _chain(16, 48, STRIDE_4), _norm(64)
        self.enter8, self.modules8, self.leave8 = Excited(64, 48, 32), _chain(48, 96, STRIDE_8), _norm(144)
        self.classes8 = nn.Conv2d(144, 2, 1, bias=False)
        self.norm8 = nn.BatchNorm2d(2, eps=1e-3)
        self.classes4 = _conv(48, 2, 1, 1)
        self.norm4 = nn.BatchNorm2d(2, eps=1e-3)
        self.head = nn.Conv2d(2, 2, 3, 1, 1, bias=False)

    def forward(self, image):
        """Logits (N,1,H,W)."""
        first4 = self.enter4(self.stem(image))
        at4 = self.modules4(first4)
        first8 = self.enter8(self.leave4(torch.cat([first4, at4], 1)))
        at8 = self.leave8(torch.cat([first8, self.modules8(first8)], 1))
        coarse = self.norm8(_double(self.classes8(at8)))
        # Information blocking: fine features count only where the coarse map is unsure of itself.
        unsure = 1.0 - torch.softmax(coarse, 1).amax(1, keepdim=True)
        fine = self.norm4(_double(self.classes4(at4) * unsure + coarse))
        classes = self.head(_double(fine))
        return classes[:, 1:] - classes[:, :1]


class Excited(nn.Module):
    """Depthwise convolution of stride 2, squeeze-and-excite, 1x1 (DSConv + SE of the paper)."""

    def __init__(self, inputs, outputs, reduced):
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, 2, 1, groups=inputs, bias=False)
        dense = [nn.Conv2d(inputs, reduced, 1), nn.PReLU(reduced)]
        if reduced != inputs:
            dense += [nn.Conv2d(reduced, inputs, 1), nn.PReLU(inputs)]
        self.excite = nn.Sequential(*dense)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = _norm(outputs)

    def forward(self, x):
        """(N,inputs,H,W) -> (N,outputs,H/2,W/2)."""
        x = self.depthwise(x)
        return self.norm(self.pointwise(x * self.excite(x.mean((2, 3), keepdim=True))))


class S2Module(nn.Module):
    """Grouped 1x1 convolution, channel shuffle, two S2 blocks side by side; added to the input where shapes allow."""

    def __init__(self, inputs, outputs, blocks):
        super().__init__()
        half = outputs // 2
        self.reduce = nn.Conv2d(inputs, half, 1, groups=2, bias=False)
        self.blocks = nn.ModuleList(S2Block(half, *block) for block in blocks)
        self.norm = _norm(outputs)
        self.residual = inputs == outputs

    def forward(self, x):
        """(N,inputs,H,W) -> (N,outputs,H,W)."""
        reduced = self.reduce(x)
        first, second = reduced.chunk(2, 1)
        shuffled = torch.stack([first, second], 2).flatten(1, 2)
        y = torch.cat([block(shuffled) for block in self.blocks], 1)
        return self.norm(x + y if self.residual else y)


class S2Block(nn.Module):
    """Average pooling, depthwise convolution, 1x1, and bilinear back to the size that came."""

    def __init__(self, channels, kernel, pooling):
        super().__init__()
        self.pooling = pooling
        self.depthwise = nn.Conv2d(channels, channels, kernel, 1, kernel // 2, groups=channels, bias=False)
        self.norm = _norm(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.last = nn.BatchNorm2d(channels, eps=1e-3)

    def forward(self, x):
        """The same shape."""
        y = F.avg_pool2d(x, self.pooling) if self.pooling > 1 else x
        y = self.pointwise(self.norm(self.depthwise(y)))
        return self.last(F.interpolate(y, x.shape[2:], mode="bilinear", align_corners=True) if self.pooling > 1 else y)


def _norm(channels):
    return nn.Sequential(nn.BatchNorm2d(channels, eps=1e-3), nn.PReLU(channels))


def _conv(inputs, outputs, kernel, stride):
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), *_norm(outputs))


def _chain(inputs, outputs, modules):
    return nn.Sequential(*(S2Module(outputs if i else inputs, outputs, blocks) for i, blocks in enumerate(modules)))


def _double(x):
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
