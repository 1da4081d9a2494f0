"""Every other frame of a stream goes in mirrored: what both looks say is averaged where the picture stays the same."""

from fractions import Fraction

import numpy as np
import pytest

from portrait.core.segmenters import Models, load_models
from portrait.core.segmenters.mirroring import TwoWays
from portrait.image.convert import frame_from_bgr
from portrait.image.frame import Frame, Plane, Timestamp
from tests.people import Array, clip, room

SIZES = [(192, 192), (150, 202)]


def grey(value: int, size: tuple[int, int] = (192, 192)) -> Plane:
    return np.full(size, value, np.uint8)


def halves(first: int, last: int, size: tuple[int, int] = (192, 192)) -> Plane:
    """A mask whose left half has one value and whose right half another."""
    values = grey(first, size)
    values[:, size[1] // 2 :] = last
    return values


@pytest.mark.parametrize("size", SIZES)
def test_looks_at_a_still_picture_go_by_turns_and_are_averaged(size: tuple[int, int]) -> None:
    ways, luma = TwoWays(), halves(40, 200, size)
    assert not ways.is_mirrored
    assert np.array_equal(ways.take(luma, halves(0, 200, size)), halves(0, 200, size))
    assert ways.is_mirrored
    # Mirrored, as the next frame goes in: the person is on its left.
    assert np.array_equal(ways.prior, halves(200, 0, size))
    assert np.array_equal(ways.take(luma[:, ::-1].copy(), halves(240, 20, size)), halves(10, 220, size))
    assert not ways.is_mirrored
    assert np.array_equal(ways.prior, halves(0, 200, size))
    assert np.array_equal(ways.take(luma, halves(4, 210, size)), halves(12, 225, size))


def test_noise_is_no_change() -> None:
    noise, ways = np.random.default_rng(1), TwoWays()
    for number in range(6):
        luma = np.clip(halves(40, 200) + noise.normal(0, 8, (192, 192)), 0, 255).astype(np.uint8)
        mask = ways.take(luma[:, ::-1].copy() if ways.is_mirrored else luma, grey(100 + 20 * (number % 2)))
    assert np.array_equal(mask, grey(110))


@pytest.mark.parametrize("size", SIZES)
def test_where_the_picture_changes_the_newest_look_alone_counts(size: tuple[int, int]) -> None:
    ways, luma = TwoWays(), grey(100, size)
    ways.take(luma, grey(0, size))
    changed = luma.copy()
    changed[:, :40] = 160
    mask = ways.take(changed[:, ::-1].copy(), grey(200, size))
    assert np.array_equal(mask[:, :40], grey(200, size)[:, :40])
    assert np.array_equal(mask[:, 60:], grey(100, size)[:, 60:])
    # What the other way saw there is brought up to date: its next look begins with it.
    assert np.array_equal(ways.prior[:, :40], grey(200, size)[:, :40])


def test_a_picture_that_moves_as_a_whole_is_looked_at_in_one_way() -> None:
    ways = TwoWays()
    for number in range(5):
        mask = ways.take(grey(50 * number), grey(40 * number))
        assert np.array_equal(mask, grey(40 * number))
        assert ways.is_mirrored
    assert np.array_equal(ways.prior, grey(160))


def test_what_was_seen_is_forgotten() -> None:
    ways = TwoWays()
    ways.take(grey(100), grey(200))
    ways.forget()
    assert not ways.is_mirrored
    assert np.array_equal(ways.take(grey(100), grey(0)), grey(0))


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models()


def frame(picture: Array) -> Frame:
    return frame_from_bgr(picture, Timestamp(0, Fraction(1)), 0.0)


@pytest.mark.parametrize("name", ["portrait", "portrait-wide", "portrait-fine"])
def test_a_picture_and_its_mirror_image_come_to_more_alike_masks(models: Models, name: str) -> None:
    """The errors in which two looks differ are what averaging removes."""
    [picture] = clip(640, 480, 1).frames
    plain, mirrored = models.pick(name).open(), models.pick(name).open()
    apart = []
    for _ in range(8):
        one = plain.segment(frame(picture)).values.astype(int)
        other = mirrored.segment(frame(picture[:, ::-1].copy())).values.astype(int)
        apart.append(np.abs(one - other[:, ::-1]).mean())
    assert apart[-1] < 0.75 * apart[0]


def test_a_prior_from_elsewhere_is_taken_as_it_is(models: Models) -> None:
    segmenter, fresh = models.pick(None).open(), models.pick(None).open()
    picture = frame(room(640, 480))
    prior = segmenter.segment(picture)  # the next frame would go in mirrored
    segmenter.resume(prior)
    fresh.resume(prior)
    assert np.array_equal(segmenter.segment(picture).values, fresh.segment(picture).values)
