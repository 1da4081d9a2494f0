"""How good a mask is. Masks are boolean (H,W) unless said otherwise."""

import cv2
import numpy as np

BOUNDARY = 0.008
"""How far a contour may lie from the true one, as a share of the picture's diagonal (DAVIS, CVPR 2016, section 4)."""


def iou(truth, predicted):
    """|A and B| / |A or B|; 1.0 where both are empty."""
    either = np.count_nonzero(truth | predicted)
    return np.count_nonzero(truth & predicted) / either if either else 1.0


def boundary_f(truth, predicted):
    """F measure of the contours' pixels, each found if the other contour is near; 1.0 where neither has any."""
    radius = int(np.ceil(BOUNDARY * np.hypot(*truth.shape)))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    true, found = contour(truth), contour(predicted)
    if not true.any() or not found.any():
        return float(true.any() == found.any())
    precision = np.count_nonzero(found & (cv2.dilate(true.astype(np.uint8), disk) > 0)) / np.count_nonzero(found)
    recall = np.count_nonzero(true & (cv2.dilate(found.astype(np.uint8), disk) > 0)) / np.count_nonzero(true)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def contour(mask):
    """Pixels whose right, lower or lower right neighbour is on the other side, as the DAVIS evaluation draws them."""
    padded = np.pad(mask, ((0, 1), (0, 1)), "edge")
    return (mask ^ padded[:-1, 1:]) | (mask ^ padded[1:, :-1]) | (mask ^ padded[1:, 1:])


def confusion(truth, predicted):
    """(4,) pixels that are truly and rightly person, truly person and missed, wrongly person, rightly not."""
    hit = np.count_nonzero(truth & predicted)
    person, claimed = np.count_nonzero(truth), np.count_nonzero(predicted)
    return np.array([hit, person - hit, claimed - hit, truth.size - person - claimed + hit])


def pooled_miou(counts):
    """Mean of the IoU of person and of background over all pixels of `counts` (4,), as segmentation papers print it."""
    hit, missed, wrong, right = counts
    return 0.5 * (hit / (hit + missed + wrong) + right / (right + missed + wrong))


def bootstrap(values, repeats=2000, seed=1):
    """The 95 % interval (low, high) of the mean of `values`."""
    values = np.asarray(values)
    means = np.random.default_rng(seed).choice(values, (repeats, len(values))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
