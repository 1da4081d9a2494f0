"""Modes that hide the person: what a moment's mask misses stays hidden, and without a mask everything is."""

from fractions import Fraction

import numpy as np
import pytest

from portrait.core.compositors import HIDING_MODES, Options, open_compositor
from portrait.core.pipeline import Pipeline, Result
from portrait.image.convert import frame_from_bgr
from portrait.image.frame import Frame, Mask, Timestamp
from portrait.metrics import Metrics
from tests.fakes import FakeModel, failing
from tests.people import Array, room

PICTURE = room(320, 240)


class Sequence:
    """Frames a thirtieth of a second apart, whose masks a test names: "left" half, "nobody", or "fails"."""

    def __init__(self, mode: str) -> None:
        self._options = Options(mode, "#ff0000", margin=0.0)
        self._compositor = open_compositor(self._options)
        self._now, self._next = 0, ""
        self._pipeline = Pipeline(FakeModel(self._mask).open(), (32, 32), Metrics())

    def _mask(self, frame: Frame) -> Mask:
        if self._next == "fails":
            return failing(frame)
        values = np.zeros((32, 32), np.uint8)
        values[:, :16] = 255 * (self._next == "left")
        return Mask(values)

    def run(self, mask: str, count: int = 1) -> Result:
        self._next = mask
        for _ in range(count):
            self._now += 1
            frame = frame_from_bgr(PICTURE, Timestamp(self._now, Fraction(1, 30)), self._now / 30)
            result = self._pipeline.run(frame, self._options, self._compositor)
        return result


def shown(result: Result) -> tuple[bool, bool]:
    """Whether the left and the right third are the camera's."""
    composed, camera = result.compose().y, result.frame.y
    return bool((composed[:, :100] == camera[:, :100]).all()), bool((composed[:, -100:] == camera[:, -100:]).all())


def detail(luma: Array) -> float:
    """How much a pixel differs from the one beside it."""
    return float(np.diff(luma.astype(int), axis=1).std())


@pytest.mark.parametrize("mode", HIDING_MODES)
def test_what_was_the_person_stays_hidden_for_a_moment(mode: str) -> None:
    frames = Sequence(mode)
    assert shown(frames.run("nobody")) == (True, True)
    assert shown(frames.run("left")) == (False, True)
    assert shown(frames.run("nobody", 10)) == (False, True)
    assert shown(frames.run("nobody", 10)) == (True, True)


@pytest.mark.parametrize("mode", HIDING_MODES)
def test_without_a_mask_the_whole_picture_is_blurred_until_a_person_is_found_or_half_a_second_has_passed(
    mode: str,
) -> None:
    frames = Sequence(mode)
    closed = frames.run("fails")
    assert detail(closed.compose().y) < 0.2 * detail(closed.frame.y)
    assert shown(frames.run("nobody", 10)) == (False, False)
    assert shown(frames.run("left")) == (False, True)
    assert shown(frames.run("fails")) == (False, False)
    assert shown(frames.run("nobody", 20)) == (True, True)


def test_the_mask_itself_is_the_present_frames() -> None:
    frames = Sequence("silhouette")
    frames.run("left")
    assert not frames.run("nobody").mask.values.any()
