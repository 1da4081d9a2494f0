"""Auto-framing: the window follows the person without jumps, and shows nothing that would not be shown without it."""

from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
import pytest

from portrait.client import Client
from portrait.core.auto_framing import FASTEST, PATIENCE, AutoFraming, Window, show
from portrait.core.compositors import Options, open_compositor
from portrait.core.pipeline import Pipeline
from portrait.image.convert import frame_from_bgr
from portrait.image.frame import Frame, Mask, Timestamp
from portrait.metrics import Metrics
from portrait.server.app import RunningService
from tests.fakes import FakeModel, failing
from tests.people import Array, clip, room

STEP = 1 / 30


def somebody(x: float, y: float = 0.5, width: float = 0.2) -> Mask:
    """An upright oval of this width around a place, in shares of the picture."""
    values = np.zeros((192, 192), np.uint8)
    cv2.ellipse(values, (round(192 * x), round(192 * y)), (round(96 * width), round(150 * width)), 0, 0, 360, 255, -1)
    return Mask(values)


NOBODY = Mask.empty(192, 192)


def followed(framing: AutoFraming, masks: list[Mask], start: int = 0) -> list[Window]:
    return [framing.follow(mask, (start + i) * STEP) for i, mask in enumerate(masks)]


def test_the_window_begins_around_the_person() -> None:
    window = AutoFraming().follow(somebody(0.3), 0.0)
    assert 0.4 <= window.side < 0.6
    assert window.left < 0.2
    assert window.left + window.side > 0.4


def test_it_glides_after_a_person_who_moves_and_arrives() -> None:
    framing = AutoFraming()
    windows = followed(framing, [somebody(0.3)] * 5 + [somebody(0.7)] * 90)
    for one, next_one in pairwise(windows):
        for here, there in ((one.left, next_one.left), (one.top, next_one.top), (one.side, next_one.side)):
            assert abs(there - here) <= FASTEST * STEP + 1e-9
    last = windows[-1]
    assert abs(last.left + last.side / 2 - 0.7) < 0.03


def test_it_stands_still_while_a_person_sways() -> None:
    framing = AutoFraming()
    sway = [somebody(0.5 + 0.01 * np.sin(i / 5), 0.5 + 0.01 * np.cos(i / 7)) for i in range(120)]
    assert len(set(followed(framing, sway))) == 1


def test_it_waits_for_a_person_who_leaves_and_widens_then() -> None:
    framing = AutoFraming()
    first = followed(framing, [somebody(0.5)])[0]
    patient = followed(framing, [NOBODY] * int(0.9 * PATIENCE / STEP), start=1)
    assert set(patient) == {first}
    assert followed(framing, [NOBODY] * 150, start=40)[-1].side > 0.99


def test_the_mask_is_that_of_the_part_that_is_shown() -> None:
    mask = somebody(0.4, 0.45)
    big = np.asarray(cv2.resize(mask.values, (642, 361)), np.uint8)
    frame = frame_from_bgr(np.asarray(cv2.merge((big, big, big)), np.uint8), Timestamp(7, Fraction(1, 30)), 2.0)
    shown, its_mask = show(Window(0.13, 0.21, 0.5), frame, mask)
    assert shown.y.shape == frame.y.shape
    assert shown.u.shape == frame.u.shape
    assert shown.timestamp == frame.timestamp
    said = cv2.resize(its_mask.values, (642, 361)).astype(int)
    difference = np.abs((shown.y.astype(int) - 16) * 255 / 219 - said)
    assert difference.mean() < 1.5
    # Somebody's width has doubled.
    assert int(its_mask.values.sum()) == pytest.approx(4 * int(mask.values.sum()), rel=0.05)


def still_frame(image: Array, number: int) -> Frame:
    return frame_from_bgr(image, Timestamp(number, Fraction(1, 30)), number * STEP)


def test_after_a_cut_the_window_is_there_at_once_and_after_a_fast_movement_it_glides() -> None:
    place = [0.3]
    pipeline = Pipeline(FakeModel(lambda _: somebody(place[0])).open(), (192, 192), Metrics())
    options = Options("color", framing=True)
    compositor = open_compositor(options)
    here, elsewhere = room(320, 240, seed=1), room(320, 240, seed=2)

    def window(image: Array, number: int) -> Window:
        picture = image.copy()
        x = round(320 * place[0])
        picture[40:200, x - 30 : x + 30] = (30, 60, 220)
        shown = pipeline.run(still_frame(picture, number), options, compositor).window
        assert shown is not None
        return shown

    first = window(here, 0)
    place[0] = 0.7
    moved = window(here, 1)
    assert abs(moved.left - first.left) <= FASTEST * STEP + 1e-9
    place[0] = 0.3
    window(here, 2)
    place[0] = 0.7
    cut = window(elsewhere, 3)
    assert abs(cut.left + cut.side / 2 - 0.7) < 0.03
    pipeline.close()


@pytest.mark.parametrize("mode", ["mask", "alpha"])
def test_what_is_laid_over_the_frame_elsewhere_is_never_framed(mode: str) -> None:
    pipeline = Pipeline(FakeModel(lambda _: somebody(0.3)).open(), (192, 192), Metrics())
    options = Options(mode, framing=True)
    result = pipeline.run(still_frame(room(320, 240), 0), options, open_compositor(options))
    assert result.window is None
    pipeline.close()


@pytest.mark.parametrize("mode", ["color", "image", "blur"])
@pytest.mark.parametrize("place", [0.2, 0.43, 0.8])
def test_nothing_of_the_room_is_in_a_framed_picture(mode: str, place: float) -> None:
    """A grey person in a room whose every second column is green: neither green nor stripes are left."""
    mask = somebody(place)
    person = np.asarray(cv2.resize(mask.values, (640, 360)), np.uint8) > 0
    picture = np.full((360, 640, 3), 60, np.uint8)
    picture[:, ::2] = (0, 255, 0)
    picture[person] = 120
    pipeline = Pipeline(FakeModel(lambda _: mask).open(), (192, 192), Metrics())
    behind = still_frame(np.full((90, 160, 3), (120, 60, 90), np.uint8), 0)
    options = Options(mode, "#5a3c78", behind, framing=True)
    result = pipeline.run(still_frame(picture, 0), options, open_compositor(options))
    assert result.window is not None
    assert result.window.side < 1
    shown = result.compose()
    # Chroma is at half size: whoever looks there sees the room's mean.
    stripes = np.abs(np.diff(shown.y.astype(int), axis=1))
    assert np.percentile(stripes, 99) < 6 if mode == "blur" else stripes.max() < 40
    pipeline.close()


@pytest.mark.parametrize("mode", ["color", "image", "cutout"])
def test_a_network_that_fails_shows_nobody_framed_or_not(mode: str) -> None:
    answers = [lambda _: somebody(0.3), failing]
    pipeline = Pipeline(FakeModel(lambda frame: answers[frame.timestamp.ticks](frame)).open(), (192, 192), Metrics())
    options = Options(mode, background=still_frame(room(320, 240, seed=9), 0), framing=True)
    shown = []
    for seed in (3, 4):
        compositor = open_compositor(options)
        pipeline.run(still_frame(room(320, 240, seed=seed), 0), options, compositor)
        result = pipeline.run(still_frame(room(320, 240, seed=seed), 1), options, compositor)
        assert result.failure is not None
        shown.append(result.compose())
    for one, other in zip((shown[0].y, shown[0].u, shown[0].v), (shown[1].y, shown[1].u, shown[1].v), strict=True):
        assert np.array_equal(one, other)
    pipeline.close()


async def test_a_stream_can_be_framed_and_its_results_keep_the_frames_size(service: RunningService) -> None:
    shown = clip(640, 480, 3)
    small = np.zeros((480, 640, 3), np.uint8)
    small[200:440, 320:640] = cv2.resize(shown.frames[0], (320, 240))
    async with Client(f"127.0.0.1:{service.grpc_port}") as client:
        plain, framed = [
            (await client.segment(np.ascontiguousarray(small[..., ::-1]), mode="cutout", framing=framing)).array
            for framing in (False, True)
        ]
    assert framed.shape == plain.shape == (480, 640, 4)
    assert (framed[..., 3] > 127).sum() > 1.3 * (plain[..., 3] > 127).sum()
