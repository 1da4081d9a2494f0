"""Cuts of 16:9: their shape, and that the person is in them."""

import numpy as np
import pytest

from training.wide import cut


@pytest.mark.parametrize(("height", "width"), [(900, 600), (480, 640), (400, 1200), (90, 160)])
def test_a_cut_is_wide_and_has_the_head_in_it(height, width):
    mask = np.zeros((height, width), np.uint8)
    mask[height // 3 :, width // 2 : width // 2 + width // 8] = 255
    image = np.dstack([mask] * 3)
    picture, its_mask = cut(image, mask)
    assert picture.shape[:2] == its_mask.shape
    assert its_mask.shape[1] / its_mask.shape[0] == pytest.approx(16 / 9, rel=0.02)
    assert np.array_equal(picture[..., 0], its_mask)
    first = np.flatnonzero(its_mask.any(axis=1))[0]
    rows = its_mask.shape[0]
    assert 0 < first <= max(round(0.08 * rows), height // 3 - (height - rows))
    assert (its_mask > 0).any(axis=0).sum() == width // 8


def test_a_picture_of_nobody_is_cut_all_the_same():
    picture, mask = cut(np.zeros((300, 200, 3), np.uint8), np.zeros((300, 200), np.uint8))
    assert picture.shape == (112, 200, 3)
    assert mask.shape == (112, 200)
