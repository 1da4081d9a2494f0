"""The network runs when the contour may have moved, in the very frame in which it does, and in every tenth anyway."""

from collections.abc import Callable, Iterable
from fractions import Fraction

import cv2
import numpy as np
import pytest

from portrait.admission.quality import Delivery
from portrait.core.compositors import Options, open_compositor
from portrait.core.mask_reuse import LONGEST_UNCHANGED
from portrait.core.pipeline import Pipeline
from portrait.image.convert import frame_from_bgr
from portrait.image.frame import Frame, Mask, Timestamp
from portrait.metrics import Metrics
from portrait.sessions.registry import Sessions
from tests.fakes import FakeModel, full_mask, only
from tests.frames import FrameCodec, make_frame
from tests.people import Array, person, room

WIDTH, HEIGHT = 320, 240
SIDE = 192
SETTLED = 3
"""Frames after which the network has given the same mask twice, at the latest."""

MASK = Options("mask")


class Scene:
    """A person who sits before a room, as a noisy sensor sees them; the network is told the exact mask."""

    def __init__(
        self, *, noise: float = 3.0, on_change: bool = True, model: FakeModel | None = None, share: float = 1.0
    ) -> None:
        """The person takes `share` of the picture's height."""
        self._share = share
        self._who, self._room = person(), room(WIDTH, HEIGHT)
        self._random, self._noise = np.random.default_rng(1), noise
        self._truth = Mask.empty(SIDE, SIDE)
        model = model or FakeModel(full_mask)
        model._segment = lambda _: self._truth
        self._pipeline = Pipeline(model.open(), (SIDE, SIDE), Metrics(), on_change=on_change)
        self._count = 0

    def show(self, *, head: float = 0.0, change: Callable[[Array, Array], None] | None = None) -> bool:
        """Whether the network runs for the next frame.

        Its person stands `head` pixels aside, and `change` draws into picture and mask.
        """
        image, mask = self._who.image, self._who.mask
        scale, top = self._share * HEIGHT / image.shape[0], (1 - self._share) * HEIGHT
        matrix = np.float32([[scale, 0, (WIDTH - scale * image.shape[1]) / 2 + head], [0, scale, top]])
        shown = cv2.warpAffine(image, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
        truth = np.asarray(cv2.warpAffine(mask, matrix, (WIDTH, HEIGHT)), np.uint8)
        picture = np.where(truth[..., None] > 127, shown, self._room)
        if change is not None:
            change(picture, truth)
        noisy = picture + self._random.normal(0, self._noise, picture.shape)
        self._truth = Mask(np.asarray(cv2.resize(truth, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8))
        return self._run(frame_from_bgr(np.clip(noisy, 0, 255).astype(np.uint8), self._time(), self._count / 30))

    def _time(self) -> Timestamp:
        self._count += 1
        return Timestamp(self._count, Fraction(1, 30))

    def _run(self, frame: Frame) -> bool:
        return not self._pipeline.run(frame, MASK, open_compositor(MASK)).carried


def hand(rise: int) -> Callable[[Array, Array], None]:
    """A hand that rises at the edge of the picture."""

    def draw(picture: Array, truth: Array) -> None:
        for plane, color in ((picture, (130, 150, 200)), (truth, 255)):
            cv2.circle(plane, (24, HEIGHT + 16 - rise), 16, color, -1)

    return draw


def mouth(number: int) -> Callable[[Array, Array], None]:
    """A mouth that opens and shuts."""

    def draw(picture: Array, truth: Array) -> None:
        x, y = WIDTH // 2, int(HEIGHT * 0.62)
        assert truth[y, x] > 127
        cv2.ellipse(picture, (x, y), (9, 1 + 2 * (number % 4)), 0, 0, 360, (40, 40, 90), -1)

    return draw


def share(runs: Iterable[bool]) -> float:
    return float(np.mean(list(runs)))


@pytest.mark.parametrize("noise", [0.0, 3.0, 8.0])
def test_a_still_picture_takes_the_network_in_every_tenth_frame_whatever_its_noise(noise: float) -> None:
    scene = Scene(noise=noise)
    runs = [scene.show() for _ in range(8 * LONGEST_UNCHANGED)]
    assert all(any(runs[i : i + LONGEST_UNCHANGED]) for i in range(len(runs) - LONGEST_UNCHANGED + 1))
    assert share(runs[SETTLED:]) <= 0.13


def test_a_face_that_talks_inside_its_outline_costs_nothing() -> None:
    scene = Scene()
    runs = [scene.show(change=mouth(number)) for number in range(40)]
    assert share(runs[SETTLED:]) <= 0.13


@pytest.mark.parametrize("wait", [8, 15, 18])
def test_the_frame_in_which_something_begins_to_move_is_segmented(wait: int) -> None:
    """A head by 1 % of the width, a hand that comes into the picture by 2 %."""
    for moves in ({"head": 0.01 * WIDTH}, {"head": -0.01 * WIDTH}, {"change": hand(round(0.02 * WIDTH) + 4)}):
        scene = Scene()
        rest = [scene.show() for _ in range(wait)]
        assert not rest[-1], "the network runs anyway, which proves nothing"
        assert scene.show(**moves), moves  # type: ignore[arg-type]


def test_a_change_far_from_the_person_has_the_whole_picture_looked_at() -> None:
    """A segmenter that looks where the person was would not see who comes in."""
    model = FakeModel(full_mask)
    scene = Scene(model=model, share=0.4)
    for _ in range(8):
        scene.show()
    assert not model.priors
    assert scene.show(change=hand(12))
    assert len(model.priors) == 1
    assert scene.show(head=0.01 * WIDTH)
    assert len(model.priors) == 1, "what moves is the person"


def test_what_creeps_is_seen_before_it_has_gone_far() -> None:
    scene = Scene()
    for _ in range(SETTLED):
        scene.show()
    runs = [scene.show(head=0.6 * number) for number in range(40)]
    longest = max(len(rest) for rest in "".join("x" if run else "." for run in runs).split("x"))
    assert 0.6 * longest < 0.012 * WIDTH


def test_every_frame_has_its_own_mask_where_the_network_always_runs() -> None:
    scene = Scene(on_change=False)
    assert all(scene.show() for _ in range(12))


def test_a_network_that_has_failed_runs_again_in_the_next_frame() -> None:
    answers = iter([full_mask] * 2)

    def flaky(frame: Frame) -> Mask:
        return next(answers)(frame)

    pipeline = Pipeline(FakeModel(flaky).open(), (32, 32), Metrics(), on_change=True)
    results = [pipeline.run(make_frame(i / 30), MASK, open_compositor(MASK)) for i in range(LONGEST_UNCHANGED + 5)]
    failed = [result.failure is not None for result in results]
    assert any(failed)
    first = failed.index(True)
    assert all(failed[first:])
    assert not any(result.mask.values.any() for result in results[first:])


async def test_only_live_sessions_reuse_masks_and_say_how_many() -> None:
    carried = {}
    async with Sessions(only(FakeModel(full_mask)), 4, Metrics(), on_change=True) as sessions:
        for delivery in Delivery:
            async with sessions.open("grpc", FrameCodec(), MASK, delivery=delivery) as session:
                for number in range(8):
                    await session.process(make_frame(number / 30), number / 30)
                carried[delivery] = session.describe()["frames_carried"]
    assert carried == {Delivery.LIVE: 6, Delivery.EXACT: 0, Delivery.STILL: 0}
