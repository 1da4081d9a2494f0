"""The paper's loss (section III.C): binary cross-entropy + Jaccard + Jaccard on the boundary band."""

from keras import ops

# Width of the boundary band in pixels of a 224x224 mask; the kernel SINet's boundary loss uses (arXiv:1911.09099).
BAND = 15


def portrait_loss(truth, predicted):
    """Mean over the batch of the three terms, each (N,) for masks (N,H,W,1) in 0..1."""
    return ops.mean(cross_entropy(truth, predicted) + jaccard(truth, predicted) + boundary_jaccard(truth, predicted))


def cross_entropy(truth, predicted):
    """Mean binary cross-entropy of every picture's pixels."""
    predicted = ops.clip(predicted, 1e-6, 1.0 - 1e-6)
    losses = -truth * ops.log(predicted) - (1.0 - truth) * ops.log(1.0 - predicted)
    return ops.mean(losses, axis=(1, 2, 3))


def jaccard(truth, predicted, weight=1.0):
    """1 - sum(t*p) / (sum(t) + sum(p) - sum(t*p) + 1) of every picture, over the pixels that `weight` selects."""
    both = ops.sum(truth * predicted * weight, axis=(1, 2, 3))
    either = ops.sum((truth + predicted) * weight, axis=(1, 2, 3)) - both
    return 1.0 - both / (either + 1.0)


def boundary_jaccard(truth, predicted):
    """Jaccard loss inside the band around the true contour, where the hard pixels are."""
    return jaccard(truth, predicted, boundary(truth))


def boundary(truth):
    """1 within BAND // 2 pixels of the contour of `truth`, else 0: dilation less erosion."""
    dilated = ops.max_pool(truth, BAND, 1, "same")
    eroded = 1.0 - ops.max_pool(1.0 - truth, BAND, 1, "same")
    return dilated - eroded
