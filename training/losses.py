"""The paper's loss (section III.C): binary cross-entropy + Jaccard + Jaccard on the boundary band."""

import cv2
import numpy as np
import torch
from torch.nn import functional as F

BAND = 15
"""Width of the boundary band in pixels of a 224x224 mask; the kernel of SINet's boundary loss (arXiv:1911.09099)."""


def portrait_loss(logits, label, band, contour=0.0):
    """Mean over the batch of the three terms, for logits, labels and their `boundary`, each (N,1,H,W) in 0..1.

    Labels may be soft: the cross-entropy takes them as they are, for its minimum is at the label itself; a Jaccard term
    would drive every pixel to 0 or 1, and takes the label's sides of 0.5. In the band the Jaccard term counts once
    more: there are the hard pixels. `contour` is the weight of the band's own cross-entropy, which the paper has not.
    """
    predicted, truth = torch.sigmoid(logits), (label > 0.5).to(logits.dtype)
    entropy = F.binary_cross_entropy_with_logits(logits, label, reduction="none")
    terms = entropy.mean((1, 2, 3)) + jaccard(predicted, truth) + jaccard(predicted, truth, band)
    if contour:
        terms = terms + contour * (entropy * band).sum((1, 2, 3)) / (band.sum((1, 2, 3)) + 1)
    return terms.mean()


def jaccard(predicted, truth, weight=1.0):
    """(N,) 1 - (sum(t*p) + 1) / (sum(t) + sum(p) - sum(t*p) + 1) over the pixels that `weight` selects.

    The paper has no 1 above the line: where no person is, its term is 1 whatever the network says, and teaches nothing.
    """
    both = (truth * predicted * weight).sum((1, 2, 3))
    either = ((truth + predicted) * weight).sum((1, 2, 3)) - both
    return 1.0 - (both + 1.0) / (either + 1.0)


def boundary(label):
    """255 within half of BAND of a contour, for a label (H,W) uint8: the dilation less the erosion of its person.

    The band is scaled with the label's height. OpenCV's morphology takes a tenth of the time of pooling in PyTorch.
    """
    width = max(3, round(BAND * label.shape[0] / 224) | 1)
    person = (label > 127).astype(np.uint8) * 255
    return cv2.morphologyEx(person, cv2.MORPH_GRADIENT, np.ones((width, width), np.uint8))
