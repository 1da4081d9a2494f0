"""One of several persons: the same from frame to frame, without the others, without flicker."""

import cv2
import numpy as np
import pytest

from portrait.core.compositors import Options, open_compositor
from portrait.core.people import FADE, PATIENCE, PersonChooser
from portrait.core.pipeline import Pipeline
from portrait.image.frame import Mask
from portrait.metrics import Metrics
from tests.fakes import FakeModel
from tests.frames import make_frame
from tests.people import Array, iou

RATE = 30


def disc(x: float, radius: float, y: float = 48.0) -> Array:
    """Somebody round, with a soft edge; in hundredths of the picture, nearly."""
    place, size = (round(2 * x), round(2 * y)), round(2 * radius)
    picture = cv2.circle(np.zeros((192, 192), np.uint8), place, size, 255, -1)
    return np.asarray(cv2.GaussianBlur(picture, (5, 5), 0), np.uint8)


def mask_of(*persons: Array) -> Mask:
    return Mask(np.asarray(np.maximum.reduce(persons), np.uint8))


def test_somebody_who_is_alone_keeps_their_mask_as_it_is() -> None:
    mask = mask_of(disc(30, 15), disc(80, 0.5))
    for which in ("largest", "nearest-centre"):
        assert PersonChooser(which).choose(mask, 0.0) is mask


@pytest.mark.parametrize(("which", "chosen"), [("largest", 0), ("nearest-centre", 1)])
def test_of_two_one_is_kept_whole_and_the_other_is_gone(which: str, chosen: int) -> None:
    persons = [disc(20, 16), disc(60, 12)]
    kept = PersonChooser(which).choose(mask_of(*persons), 0.0).values
    assert iou(persons[chosen], kept) > 0.99
    assert kept[persons[1 - chosen] > 0].max() < 8


def test_who_is_chosen_stays_apart_from_another_who_comes_to_touch_them_and_leaves_again() -> None:
    chooser, worst, areas = PersonChooser("largest"), 1.0, []
    for frame in range(90):
        gap = abs(frame - 45) - 12  # pixels between the two; they overlap by as many at the least
        mine, other = disc(30, 16), disc(30 + 16 + 13 + gap, 13)
        kept = chooser.choose(mask_of(mine, other), frame / RATE).values
        alone = np.where((other > 127) & (mine < 128), 255, 0).astype(np.uint8)
        worst = min(worst, iou(mine, kept))
        areas.append(np.count_nonzero(kept > 127))
        assert np.count_nonzero((kept > 127) & (alone > 0)) < 0.2 * np.count_nonzero(alone)
    assert worst > 0.85
    assert np.abs(np.diff(areas)).max() < 0.1 * max(areas)


def test_another_is_chosen_only_when_they_have_been_clearly_better_for_a_while_and_fades_in() -> None:
    chooser, frame = PersonChooser("largest"), 0

    def run(first: float, second: float, seconds: float) -> list[tuple[int, int]]:
        """How much is left of the middle of each."""
        nonlocal frame
        left = []
        for _ in range(round(seconds * RATE)):
            values = chooser.choose(mask_of(disc(24, first), disc(70, second)), frame / RATE).values
            left.append((int(values[96, 48]), int(values[96, 140])))
            frame += 1
        return left

    assert set(run(14, 13, 0.5)) == {(255, 0)}
    assert set(run(13, 14, 2.0)) == {(255, 0)}  # hardly larger
    assert set(run(10, 16, PATIENCE - 0.1)) == {(255, 0)}
    assert set(run(14, 13, 0.2)) == {(255, 0)}  # for too short a time
    changing = run(10, 16, PATIENCE + FADE + 0.2)
    assert changing[-1] == (0, 255)
    steps = np.diff(np.array(changing), axis=0)
    assert np.abs(steps).max() < 60
    assert set(run(14, 13, 1.0)) == {(0, 255)}


def test_a_pipeline_shows_one_person_and_takes_the_other_for_room() -> None:
    values = np.zeros((32, 32), np.uint8)
    values[8:28, 2:14] = 255
    values[8:28, 22:28] = 255
    pipeline = Pipeline(FakeModel(lambda _: Mask(values)).open(), (32, 32), Metrics())
    options = Options("color", people="largest")
    result = pipeline.run(make_frame(), options, open_compositor(options))
    assert result.mask.values[18, 8] > 200
    assert result.mask.values[:, 20:].max() < 40
    assert result.prior.values[18, 25] == 255
    assert result.presence.box is not None
    assert result.presence.box.left + result.presence.box.width < 0.6
