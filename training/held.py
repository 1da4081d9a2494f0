"""What goes into the file around a network: its sigmoid, channels last, and small changes of the mask held back."""

import torch
from torch import nn

from training.selfie import Selfie


def held(mask, prior, hold):
    """A mask p that noise cannot move: q + (p - q) |p - q| / hold where it is less than `hold` from the prior q.

    The smaller the difference, the less of it is believed. Larger differences pass whole, so that a person who moves or
    leaves is gone in the frame they are gone; an empty prior changes no pixel's side of 0.5 while `hold` <= 0.5.
    """
    change = mask - prior
    return prior + change * torch.clamp(change.abs() * (1.0 / hold), max=1.0)


class Held(nn.Module):
    """What goes into the file: a network with its sigmoid, channels last, and small changes held back (`held`)."""

    def __init__(self, network, hold=0.0):
        super().__init__()
        self.network, self.hold = network, hold if network.takes_prior else 0.0

    def forward(self, image, prior=None):
        """{"mask": (1,H,W,1)} of an image (1,H,W,3) and a prior (1,H,W,1)."""
        inputs = [value.permute(0, 3, 1, 2) for value in (image, prior) if value is not None]
        if isinstance(self.network, Selfie):
            mask = interleaved(self.network.probability(self.network.quarters(*inputs)).permute(0, 2, 3, 1))
        else:
            mask = torch.sigmoid(self.network(*inputs)).permute(0, 2, 3, 1)
        return {"mask": held(mask, prior, self.hold) if self.hold else mask}


def interleaved(quarters):
    """(1,2H,2W,1) of (1,H,W,4): a pixel shuffle in channels last, of one transposition instead of three."""
    _, height, width, _ = quarters.shape
    squares = quarters.reshape(height, width, 2, 2).permute(0, 2, 1, 3)
    return squares.reshape(1, 2 * height, 2 * width, 1)
