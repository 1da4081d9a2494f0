"""Colours: every matrix and range, in and out, in every mode that makes a colour."""

from fractions import Fraction
from itertools import product

import av
import numpy as np
import pytest

from portrait.core.compositors import Options, open_compositor
from portrait.core.segmenters import load_models
from portrait.image.av_frame import av_from_frame, frame_from_av
from portrait.image.convert import bgr_from_frame, bgra_from_frame, frame_from_bgr, recolored, usual_matrix
from portrait.image.frame import CAMERA, Colors, Frame, Mask, Matrix, Range, Timestamp
from tests.people import clip, room

NOW = Timestamp(1, Fraction(1, 30))
ALL = [Colors(matrix, reach) for matrix, reach in product(Matrix, Range)]
SPACES = {Matrix.BT601: 6, Matrix.BT709: 1, Matrix.BT2020: 9}
NOBODY = Mask.empty(96, 96)
GREEN = (0, 177, 64)


def shown(y: float, u: float, v: float, colors: Colors) -> list[float]:
    """Red, green and blue as a player computes them, independently of the service (ITU-T H.273, 8.3)."""
    red, blue = {
        Matrix.BT601: (0.299, 0.114),
        Matrix.BT709: (0.2126, 0.0722),
        Matrix.BT2020: (0.2627, 0.0593),
    }[colors.matrix]
    if colors.range is Range.LIMITED:
        y, u, v = (y - 16) / 219, (u - 128) / 224, (v - 128) / 224
    else:
        y, u, v = y / 255, (u - 128) / 255, (v - 128) / 255
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return [255 * level for level in (r, (y - red * r - blue * b) / (1 - red - blue), b)]


def shown_of(frame: Frame) -> list[float]:
    return shown(float(frame.y[0, 0]), float(frame.u[0, 0]), float(frame.v[0, 0]), frame.colors)


def plain(y: int, u: int, v: int, colors: Colors = CAMERA, size: tuple[int, int] = (64, 48)) -> Frame:
    width, height = size
    chroma = (height + 1) // 2, (width + 1) // 2
    planes = (np.full((height, width), y, np.uint8), np.full(chroma, u, np.uint8), np.full(chroma, v, np.uint8))
    return Frame(*planes, NOW, 0.0, colors=colors)


def picture(name: str, levels: tuple[int, ...], space: int = 2, reach: int = 0) -> av.VideoFrame:
    made = av.VideoFrame(64, 48, name)
    for plane, level in zip(made.planes, levels, strict=True):
        np.frombuffer(memoryview(plane), np.uint8)[:] = level
    made.pts, made.time_base, made.colorspace, made.color_range = 1, Fraction(1, 30), space, reach
    return made


@pytest.mark.parametrize("colors", ALL, ids=str)
def test_a_colour_asked_for_is_shown_as_asked_in_every_matrix_and_range(colors: Colors) -> None:
    composed = open_compositor(Options("color", "#00b140")).compose(plain(120, 110, 150, colors), NOBODY)
    assert composed.colors == colors
    assert shown_of(composed) == pytest.approx(GREEN, abs=2)


@pytest.mark.parametrize("colors", ALL, ids=str)
def test_a_background_is_shown_in_its_own_colours_in_every_matrix_and_range(colors: Colors) -> None:
    behind = frame_from_bgr(np.full((36, 64, 3), GREEN[::-1], np.uint8), NOW, 0.0)
    compositor = open_compositor(Options("image", background=behind))
    for asked in (CAMERA, colors, CAMERA):  # a session's frames may change
        composed = compositor.compose(plain(120, 110, 150, asked), NOBODY)
        assert composed.colors == asked
        assert shown_of(composed) == pytest.approx(GREEN, abs=3)


@pytest.mark.parametrize("colors", ALL, ids=str)
def test_what_a_cutout_hides_is_black_in_every_matrix_and_range(colors: Colors) -> None:
    cutout = open_compositor(Options("cutout")).compose(plain(120, 110, 150, colors), NOBODY)
    assert shown_of(cutout) == pytest.approx((0, 0, 0), abs=1)
    assert not bgra_from_frame(cutout).any()


@pytest.mark.parametrize("mode", ["mask", "alpha"])
@pytest.mark.parametrize("colors", ALL, ids=str)
def test_probabilities_are_shown_from_0_to_255_in_every_matrix_and_range(colors: Colors, mode: str) -> None:
    for probability in (0, 255):
        mask = Mask(np.full((96, 96), probability, np.uint8))
        grey = open_compositor(Options(mode)).compose(plain(120, 110, 150, colors), mask)
        assert shown_of(grey) == pytest.approx([probability] * 3, abs=1)


@pytest.mark.parametrize("colors", ALL, ids=str)
@pytest.mark.parametrize("size", [(64, 48), (63, 47)], ids=str)
def test_recolored_frames_show_the_same(colors: Colors, size: tuple[int, int]) -> None:
    frame = frame_from_bgr(room(*size), NOW, 0.0)
    there = recolored(frame, colors)
    assert (there.colors, there.y.shape, there.u.shape) == (colors, frame.y.shape, frame.u.shape)
    assert np.abs(bgr_from_frame(there).astype(int) - bgr_from_frame(frame)).mean() < 2
    for rgb in (GREEN, (200, 90, 70), (255, 255, 255), (0, 0, 0), (20, 20, 20), (255, 0, 0), (0, 0, 255)):
        plain_frame = frame_from_bgr(np.full((*size[::-1], 3), rgb[::-1], np.uint8), NOW, 0.0)
        assert shown_of(recolored(plain_frame, colors)) == pytest.approx(rgb, abs=4)


@pytest.mark.parametrize("colors", ALL, ids=str)
def test_the_network_sees_the_same_whatever_the_matrix_and_range(colors: Colors) -> None:
    segmenter = load_models().pick(None).open()
    frame = frame_from_bgr(clip(320, 240, 1).frames[0], NOW, 0.0)
    expected = segmenter.segment(frame).values.astype(int)
    segmenter.reset()
    got = segmenter.segment(recolored(frame, colors)).values.astype(int)
    segmenter.close()
    # Taken for limited BT.601, the other five give masks that differ by 0.23 to 0.47.
    assert np.abs(got - expected).mean() < 0.15


@pytest.mark.parametrize("colors", ALL, ids=str)
@pytest.mark.parametrize("mode", ["blur", "color", "image", "cutout", "mask", "alpha"])
def test_a_result_keeps_its_sources_colours(colors: Colors, mode: str) -> None:
    behind = frame_from_bgr(room(64, 48), NOW, 0.0)
    frame = recolored(frame_from_bgr(room(64, 48), NOW, 0.0), colors)
    mask = Mask(np.full((96, 96), 255, np.uint8))
    composed = open_compositor(Options(mode, background=behind)).compose(frame, mask)
    assert composed.colors == colors
    assert av_from_frame(composed).colorspace == SPACES[colors.matrix]


@pytest.mark.parametrize("colors", ALL, ids=str)
def test_decoded_pictures_carry_their_colours_in_and_out(colors: Colors) -> None:
    reach = 2 if colors.range is Range.FULL else 1
    frame = frame_from_av(picture("yuv420p", (111, 105, 58), SPACES[colors.matrix], reach), 10**6, 0.0)
    assert frame.colors == colors
    back = av_from_frame(frame)
    assert (back.format.name, back.colorspace, back.color_range) == ("yuv420p", SPACES[colors.matrix], reach)
    assert frame_from_av(back, 10**6, 0.0).colors == colors


@pytest.mark.parametrize("name", ["yuvj420p", "yuvj422p", "yuvj444p"])
def test_the_older_names_of_full_range_are_full_range(name: str) -> None:
    frame = frame_from_av(picture(name, (240, 110, 150)), 10**6, 0.0)
    assert frame.colors == Colors(Matrix.BT601, Range.FULL)
    assert (frame.y[0, 0], frame.u[0, 0], frame.v[0, 0]) == (240, 110, 150)


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_other_formats_keep_their_range(reach: int) -> None:
    frame = frame_from_av(picture("yuv444p", (200, 110, 150), 1, reach), 10**6, 0.0)
    assert frame.colors == Colors(Matrix.BT709, Range.FULL if reach == 2 else Range.LIMITED)
    assert (frame.y[0, 0], frame.u[0, 0], frame.v[0, 0]) == pytest.approx((200, 110, 150), abs=1)


@pytest.mark.parametrize("unknown", list(Matrix))
@pytest.mark.parametrize("name", ["rgb24", "bgra", "gbrp", "gray"])
def test_rgb_and_grey_pictures_are_shown_as_they_are(name: str, unknown: Matrix) -> None:
    rgb = (200, 200, 200) if name == "gray" else GREEN
    source = av.VideoFrame.from_ndarray(np.full((48, 64, 3), rgb, np.uint8), format="rgb24")
    source = source.reformat(format=name)
    source.pts, source.time_base, source.color_range = 1, Fraction(1, 30), 2
    frame = frame_from_av(source, 10**6, 0.0, unknown)
    assert frame.colors == Colors(unknown, Range.LIMITED)
    assert shown_of(frame) == pytest.approx(rgb, abs=3)


def test_an_unknown_matrix_is_what_the_caller_says() -> None:
    assert frame_from_av(picture("yuv420p", (1, 2, 3)), 10**6, 0.0).colors == CAMERA
    made = frame_from_av(picture("yuv420p", (1, 2, 3)), 10**6, 0.0, unknown=usual_matrix(1080))
    assert made.colors == Colors(Matrix.BT709)
    assert [usual_matrix(height) for height in (576, 720)] == [Matrix.BT601, Matrix.BT709]
