"""Contours go where the picture turns, and nowhere else."""

from fractions import Fraction

import numpy as np
import pytest

from portrait.core.guided_filter import follow_edges, make_fine_guide, make_guide
from portrait.core.segmenters import Models
from portrait.image.convert import frame_from_bgr
from portrait.image.frame import GREY, Frame, Mask, Plane, Timestamp
from tests.people import clip

SIDE = 192


def step(at: int, side: int = SIDE, low: int = 40, high: int = 200) -> Plane:
    picture = np.full((side, side), low, np.uint8)
    picture[:, at:] = high
    return picture


def ramp(middle: int, width: int) -> Plane:
    """A mask whose probability rises over `width` columns and is one half at column `middle`."""
    rise = np.clip((np.arange(SIDE) - middle) / width + 0.5, 0, 1)
    return np.broadcast_to(np.rint(255 * rise).astype(np.uint8), (SIDE, SIDE)).copy()


def contour(mask: Mask) -> float:
    """The mean column at which rows pass from background to person."""
    return float(np.mean(np.argmax(mask.values > 127, axis=1)))


def followed(mask: Mask, luma: Plane) -> Mask:
    grey = np.full(((luma.shape[0] + 1) // 2, (luma.shape[1] + 1) // 2), GREY, np.uint8)
    frame = Frame(luma, grey, grey, Timestamp(0, Fraction(1)), 0.0)
    return follow_edges(mask, make_guide(frame, mask.width, mask.height))


@pytest.mark.parametrize("drawn", [96, 97, 103])
def test_a_contour_beside_an_edge_moves_towards_it(drawn: int) -> None:
    mask = Mask(ramp(drawn, 8))
    assert abs(contour(followed(mask, step(100))) - 100) <= abs(contour(mask) - 100) - 1


def test_the_size_of_the_picture_does_not_matter() -> None:
    large = followed(Mask(ramp(97, 8)), step(750, 1440))
    assert abs(contour(large) - 100) <= 2
    assert large.values.shape == (SIDE, SIDE)


def test_where_the_picture_is_flat_the_contour_stays() -> None:
    mask = Mask(ramp(98, 8))
    noise = np.random.default_rng(1).normal(128, 3, (SIDE, SIDE)).astype(np.uint8)
    assert abs(contour(followed(mask, noise)) - contour(mask)) <= 0.5


def test_edges_away_from_the_contour_draw_nothing() -> None:
    mask = Mask(ramp(60, 8))
    change = followed(mask, step(150)).values[:, 120:].astype(int) - mask.values[:, 120:]
    assert np.abs(change).max() <= 1


@pytest.mark.parametrize("value", [0, 255])
def test_nobody_stays_nobody_and_everybody_everybody(value: int) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (480, 640)).astype(np.uint8)
    assert np.abs(followed(Mask(np.full((SIDE, SIDE), value, np.uint8)), noise).values.astype(int) - value).max() == 0


def test_other_sizes_than_square_and_the_smallest() -> None:
    for height, width in ((144, 256), (2, 2)):
        assert followed(Mask(np.zeros((height, width), np.uint8)), step(100)).values.shape == (height, width)


@pytest.mark.parametrize("width", [4, 8])
def test_a_fine_contour_is_followed_at_its_own_size(width: int) -> None:
    """A thin line outlives the filter at the mask's size and not at half of it."""
    values = np.zeros((SIDE, SIDE), np.uint8)
    values[:, 100 : 100 + width // 2] = 255
    luma = np.where(values > 0, 200, 40).astype(np.uint8)
    grey = np.full((SIDE // 2, SIDE // 2), GREY, np.uint8)
    frame = Frame(luma, grey, grey, Timestamp(0, Fraction(1)), 0.0)
    fine = follow_edges(Mask(values, fine=True), make_fine_guide(frame, SIDE, SIDE)).values
    coarse = follow_edges(Mask(values), make_guide(frame, SIDE, SIDE)).values
    apart = [np.abs(found.astype(int) - values).mean() for found in (fine, coarse)]
    assert apart[0] < apart[1] / 2


def test_only_stills_are_followed_at_full_size(models: Models) -> None:
    picture = frame_from_bgr(clip(640, 480, 1).frames[0], Timestamp(0, Fraction(1)), 0.0)
    once, several = models.pick("portrait-fine").open(), models.pick_still(None).open()
    assert not once.segment(picture).fine
    assert several.segment(picture).fine
