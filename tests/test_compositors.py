"""Every output mode over the same frames: nothing of the camera outside the person, nothing else inside."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from portrait.core.compositors import HIDING_MODES, MODES, Options, open_compositor
from portrait.errors import BadOption
from portrait.image.convert import bgr_from_frame, bgra_from_frame, frame_from_bgr
from portrait.image.frame import Frame, Mask, Timestamp
from tests.people import Array, room

SIZES = [(320, 240), (321, 241), (16, 16), (1, 1)]
PERSON = np.full((32, 32), 255, np.uint8)


def make_frame(size: tuple[int, int] = (320, 240), seed: int = 3) -> Frame:
    return frame_from_bgr(room(*size, seed=seed), Timestamp(42, Fraction(1, 30)), 1.5)


def options(mode: str) -> Options:
    return Options(mode, "#ff0000", make_frame((64, 64), seed=9))


def planes(frame: Frame) -> list[Array]:
    return [frame.y, frame.u, frame.v]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_a_result_has_the_size_and_time_of_its_frame(mode: str, size: tuple[int, int]) -> None:
    frame = make_frame(size)
    result = open_compositor(options(mode)).compose(frame, Mask(PERSON))
    assert (result.width, result.height) == size
    assert result.u.shape == frame.u.shape
    assert result.timestamp == frame.timestamp
    assert result.arrived == frame.arrived


@pytest.mark.parametrize("mode", ["blur", "color", "image", "cutout"])
@pytest.mark.parametrize("size", SIZES)
def test_a_full_mask_gives_exactly_the_camera(mode: str, size: tuple[int, int]) -> None:
    frame = make_frame(size)
    result = open_compositor(options(mode)).compose(frame, Mask(PERSON))
    for got, expected in zip(planes(result), planes(frame), strict=True):
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("mode", ["color", "image", "cutout", "mask", "alpha"])
def test_an_empty_mask_shows_nothing_of_the_camera(mode: str) -> None:
    compositor = open_compositor(options(mode))
    one = compositor.compose(make_frame(seed=3), Mask.empty(32, 32))
    other = compositor.compose(make_frame(seed=4), Mask.empty(32, 32))
    for got, expected in zip(planes(one), planes(other), strict=True):
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("mode", HIDING_MODES)
@pytest.mark.parametrize("size", SIZES)
def test_where_the_person_is_hidden_an_empty_mask_gives_exactly_the_camera(mode: str, size: tuple[int, int]) -> None:
    frame = make_frame(size)
    result = open_compositor(options(mode)).compose(frame, Mask.empty(32, 32))
    for got, expected in zip(planes(result), planes(frame), strict=True):
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("mode", HIDING_MODES)
def test_where_the_person_is_hidden_a_full_mask_leaves_nothing_to_read(mode: str) -> None:
    y, x = np.indices((240, 320))
    board = np.repeat(np.uint8(255) * ((x // 4 + y // 4) % 2)[..., None].astype(np.uint8), 3, axis=2)
    frame = frame_from_bgr(board, Timestamp(0, Fraction(1)), 0.0)
    result = open_compositor(options(mode)).compose(frame, Mask(PERSON))
    assert frame.y.std() > 90
    assert result.y.std() < 9


@pytest.mark.parametrize("mode", HIDING_MODES)
@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_what_hides_the_person_reaches_so_far_beyond_them_and_not_further(mode: str, margin: float) -> None:
    values = np.zeros((100, 100), np.uint8)
    values[40:60, 40:60] = 255
    values[40:60, 60] = 80  # a part of the person: hidden entirely
    frame = make_frame((400, 400))
    result = open_compositor(Options(mode, "#ff0000", margin=margin)).compose(frame, Mask(values))
    reach = round(400 * margin)
    inside = np.s_[162 - reach : 238 + reach, 162 - reach : 242 + reach]  # half a pixel of the mask is a soft edge
    beyond = np.ones((400, 400), bool)
    beyond[160 - reach - 4 : 240 + reach + 4, 160 - reach - 4 : 244 + reach + 4] = False
    assert np.array_equal(result.y[beyond], frame.y[beyond])
    whole = open_compositor(Options(mode, "#ff0000")).compose(frame, Mask(PERSON))
    assert np.array_equal(result.y[inside], whole.y[inside])


def test_blur_with_an_empty_mask_leaves_nothing_to_read() -> None:
    stripes = np.zeros((240, 320, 3), np.uint8)
    stripes[:, ::8] = stripes[:, 1::8] = stripes[:, 2::8] = stripes[:, 3::8] = 255
    frame = frame_from_bgr(stripes, Timestamp(0, Fraction(1)), 0.0)
    result = open_compositor(options("blur")).compose(frame, Mask.empty(32, 32))
    assert frame.y.std() > 90
    assert result.y.std() < 9


def test_blur_keeps_the_persons_colour_out_of_the_room() -> None:
    picture = np.full((240, 320, 3), 40, np.uint8)
    picture[:, 110:210] = (0, 0, 255)
    mask = np.zeros((240, 320), np.uint8)
    mask[:, 110:210] = 255
    frame = frame_from_bgr(picture, Timestamp(0, Fraction(1)), 0.0)
    result = bgr_from_frame(open_compositor(options("blur")).compose(frame, Mask(mask)))
    beside = result[:, 215:225].reshape(-1, 3).mean(axis=0)
    assert beside == pytest.approx([40, 40, 40], abs=14)


def test_color_is_the_colour_asked_for() -> None:
    result = open_compositor(Options("color", "#1e90ff")).compose(make_frame(), Mask.empty(32, 32))
    assert bgr_from_frame(result)[100, 100].tolist() == pytest.approx([0xFF, 0x90, 0x1E], abs=3)


def test_mask_shows_the_probability_and_alpha_is_steeper() -> None:
    mask = Mask(np.full((32, 32), 64, np.uint8))
    grey = bgr_from_frame(open_compositor(options("mask")).compose(make_frame(), mask))
    steep = bgr_from_frame(open_compositor(options("alpha")).compose(make_frame(), mask))
    assert grey[0, 0].tolist() == pytest.approx([64, 64, 64], abs=2)
    assert steep[0, 0].tolist() == pytest.approx([0, 0, 0], abs=2)


def test_cutout_has_no_camera_under_its_transparent_pixels() -> None:
    values = np.zeros((240, 320), np.uint8)
    values[:, :160] = 255
    pixels = bgra_from_frame(open_compositor(options("cutout")).compose(make_frame(), Mask(values)))
    assert pixels[10, 10, 3] == 255
    assert pixels[10, 300].tolist() == [0, 0, 0, 0]


def test_composing_writes_to_no_input() -> None:
    frame = make_frame()
    for plane in planes(frame):
        plane.flags.writeable = False
    half = Mask(cv2.GaussianBlur(np.pad(PERSON, 16), (9, 9), 0).astype(np.uint8))
    half.values.flags.writeable = False
    for mode in MODES:
        open_compositor(options(mode)).compose(frame, half)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"mode": "sepia"}, "unknown mode 'sepia'; expected one of"),
        ({"mode": "color", "color": "green"}, "got 'green', expected #rrggbb"),
        ({"mode": "image"}, "got mode image without a background"),
        ({"mode": "pixelate", "margin": 0.3}, "got 0.3, expected 0 to 0.2"),
    ],
)
def test_bad_options_say_what_is_expected(wanted: dict[str, str | float], message: str) -> None:
    with pytest.raises(BadOption, match=message):
        open_compositor(Options(**wanted))  # type: ignore[arg-type]  # each has its field's type
