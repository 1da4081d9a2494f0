"""Pipelines: the prior's rules, and failing closed."""

import numpy as np
import pytest

from portrait.admission.quality import Quality
from portrait.core.compositors import Options, open_compositor
from portrait.core.pipeline import Pipeline
from portrait.image.frame import Frame, Mask
from portrait.metrics import Metrics
from tests.fakes import FakeModel, failing, full_mask
from tests.frames import GREEN, make_frame


def pipeline(model: FakeModel) -> Pipeline:
    return Pipeline(model.open(), (32, 32), Metrics())


@pytest.mark.parametrize(
    ("first", "second", "resets"),
    [
        (make_frame(0.0), make_frame(0.9), 0),
        (make_frame(0.0), make_frame(1.1), 1),
        (make_frame(0.0), make_frame(0.1, (48, 64)), 1),
    ],
    ids=["next frame", "after a gap of over a second", "another size"],
)
def test_the_prior_is_forgotten_when_it_says_nothing(first: Frame, second: Frame, resets: int) -> None:
    model = FakeModel(full_mask)
    tested = pipeline(model)
    for frame in (first, second):
        tested.run(frame, GREEN, open_compositor(GREEN))
    assert model.resets == resets


@pytest.mark.parametrize(
    ("changed", "resets"),
    [(slice(0, 0), 0), (slice(0, 24), 1), (slice(24, 48), 0)],
    ids=["nothing", "where the person was", "elsewhere"],
)
def test_the_prior_is_forgotten_when_its_person_is_no_longer_there(changed: slice, resets: int) -> None:
    model = FakeModel(upper_half)
    tested, first = pipeline(model), make_frame()
    other = first.y.copy()
    other[changed] = 255 - other[changed]
    noise = np.random.default_rng(1).normal(0, 3, other.shape)
    second = first.with_planes(np.clip(other + noise, 0, 255).astype(np.uint8), first.u, first.v)
    for frame in (first, second):
        tested.run(frame, GREEN, open_compositor(GREEN))
    assert model.resets == resets


def upper_half(_: Frame) -> Mask:
    values = np.zeros((32, 32), np.uint8)
    values[:16] = 255
    return Mask(values)


def test_a_failing_network_shows_nothing_of_the_camera() -> None:
    model = FakeModel(failing)
    result = pipeline(model).run(make_frame(), GREEN, open_compositor(GREEN))
    assert str(result.failure) == "injected"
    assert len(np.unique(result.compose().y)) == 1
    assert model.resets == 1


def test_any_exception_of_a_runtime_fails_closed() -> None:
    def crash(_: Frame) -> Mask:
        raise ZeroDivisionError("injected")

    result = pipeline(FakeModel(crash)).run(make_frame(), GREEN, open_compositor(GREEN))
    assert isinstance(result.failure, ZeroDivisionError)
    assert not result.mask.values.any()


def test_a_resumed_prior_is_used_whatever_the_quality_is() -> None:
    """A stream that moves to another box arrives where quality is already down: the smaller network takes it over."""
    prior = Mask(np.full((32, 32), 200, np.uint8))
    for quality in Quality:
        best, smaller = FakeModel(full_mask), FakeModel(full_mask)
        tested = Pipeline(best.open(), (32, 32), Metrics(), smaller.open)
        tested.resume(prior)
        tested.run(make_frame(), GREEN, open_compositor(GREEN), quality)
        used = smaller if quality >= Quality.SMALLER else best
        assert [mask.values.max() for mask in used.priors] == [200]
        assert smaller.resets == 0


def test_a_resumed_prior_is_used_once() -> None:
    best, smaller = FakeModel(full_mask), FakeModel(full_mask)
    tested = Pipeline(best.open(), (32, 32), Metrics(), smaller.open)
    tested.resume(Mask(np.full((32, 32), 200, np.uint8)))
    tested.run(make_frame(0.0), GREEN, open_compositor(GREEN), Quality.FULL)
    tested.run(make_frame(0.1, (48, 64)), GREEN, open_compositor(GREEN), Quality.SMALLER)  # another picture
    assert not smaller.priors
    assert smaller.resets == 1


@pytest.mark.parametrize("mode", ["mask", "alpha"])
def test_a_grey_mode_gives_one_number_per_pixel_at_the_frames_size(mode: str) -> None:
    options = Options(mode)
    result = pipeline(FakeModel(upper_half)).run(make_frame(), options, open_compositor(options))
    picture = result.picture()
    assert isinstance(picture, np.ndarray)
    assert picture.shape == (48, 64)
    assert (picture[0, 0], picture[-1, 0]) == (255, 0)
    assert result.grey((32, 32)).shape == (32, 32)


@pytest.mark.parametrize("mode", ["blur", "color", "cutout"])
def test_a_composing_mode_gives_a_frame(mode: str) -> None:
    options = Options(mode)
    picture = pipeline(FakeModel(upper_half)).run(make_frame(), options, open_compositor(options)).picture()
    assert isinstance(picture, Frame)
    assert (picture.alpha is not None) == (mode == "cutout")
