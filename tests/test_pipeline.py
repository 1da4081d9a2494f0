"""Pipelines: the prior's rules, and failing closed."""

import numpy as np
import pytest

from portrait.core.compositors import open_compositor
from portrait.core.pipeline import Pipeline
from portrait.image.frame import Frame
from portrait.image.mask import Mask
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
