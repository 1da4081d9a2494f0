"""The person's edge over another room: their own colours, the new room's light, and how soft it is where."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from portrait.core.compositors import Options, open_compositor
from portrait.core.compositors.modes import blend_into
from portrait.errors import BadOption
from portrait.image.convert import bgr_from_frame, bgra_from_frame, frame_from_bgr
from portrait.image.frame import Frame, Mask, Timestamp
from tests.people import Array

RED, GREEN, BLUE = (30, 30, 200), (40, 190, 40), (190, 60, 40)
STEEP = Options().steep


def as_frame(pixels: Array) -> Frame:
    return frame_from_bgr(pixels, Timestamp(0, Fraction(1)), 0.0)


def plain(color: tuple[int, int, int]) -> Array:
    return np.full((240, 320, 3), color, np.uint8)


def soft_person() -> tuple[Frame, Mask, Array]:
    """Somebody in red before a green room, a mask whose edge is theirs, and their true share, (H,W,1) 0 to 1."""
    values = np.zeros((192, 192), np.uint8)
    cv2.ellipse(values, (96, 120), (40, 60), 0, 0, 360, 255, -1)
    mask = Mask(np.asarray(cv2.GaussianBlur(values, (0, 0), 3), np.uint8))
    share = cv2.resize(cv2.LUT(mask.values, STEEP), (320, 240))[..., None] / 255
    seen = np.rint(share * np.float64(RED) + (1 - share) * np.float64(GREEN)).astype(np.uint8)
    return as_frame(seen), mask, np.asarray(share)


def edge_of(share: Array) -> Array:
    return np.asarray((share[..., 0] > 0.1) & (share[..., 0] < 0.9))


@pytest.mark.parametrize("mode", ["color", "image"])
def test_the_old_rooms_colour_leaves_the_persons_edge(mode: str) -> None:
    frame, mask, share = soft_person()
    behind = as_frame(plain(BLUE))
    color = "#" + bytes(reversed(BLUE)).hex()
    shown = bgr_from_frame(open_compositor(Options(mode, color, behind, decontaminate=True)).compose(frame, mask))
    room = behind.y.copy(), behind.u.copy(), behind.v.copy()
    untreated = bgr_from_frame(blend_into(room, frame, mask, STEEP))
    true = share * np.float64(RED) + (1 - share) * np.float64(BLUE)
    edge = edge_of(share)

    def green_left(picture: Array) -> float:
        return float((picture[edge][:, 1] - true[edge][:, 1]).mean())

    assert green_left(untreated) > 15
    assert abs(green_left(shown)) < 0.65 * green_left(untreated)


def test_a_cutouts_edge_has_the_persons_colours() -> None:
    frame, mask, share = soft_person()
    cutout = open_compositor(Options("cutout", decontaminate=True)).compose(frame, mask)
    pixels = bgra_from_frame(cutout)[edge_of(share)]
    before = bgr_from_frame(frame)[edge_of(share)]
    assert np.abs(before.astype(int) - RED).max(axis=1).mean() > 60
    assert np.abs(pixels[:, :3].astype(int) - RED).max(axis=1).mean() < 45


def test_the_new_rooms_light_falls_on_the_edge_and_nowhere_else() -> None:
    frame, mask, share = soft_person()
    dark, light = (
        open_compositor(Options("color", color, decontaminate=True)).compose(frame, mask).y.astype(int)
        for color in ("#000000", "#ffffff")
    )
    difference, plain_difference = light - dark, 219 * (1 - share[..., 0])
    middle = (share[..., 0] > 0.45) & (share[..., 0] < 0.55)
    assert (difference - plain_difference)[middle].mean() > 8
    assert np.abs(difference - plain_difference)[share[..., 0] == 1].max() < 2
    assert np.abs(difference - plain_difference)[share[..., 0] == 0].max() < 2


def test_higher_thresholds_take_from_the_person_and_feathers_soften() -> None:
    frame, mask, _ = soft_person()

    def shares(**edge: float) -> Array:
        alpha = open_compositor(Options("cutout", **edge)).compose(frame, mask).alpha  # type: ignore[arg-type]
        assert alpha is not None
        return alpha

    usual, narrow, hard = shares(), shares(threshold=0.7), shares(feather=0.05)
    assert (narrow > 127).sum() < 0.97 * (usual > 127).sum()
    between = [((each > 20) & (each < 235)).sum() for each in (hard, usual)]
    assert between[0] < between[1] / 2


@pytest.mark.parametrize(("threshold", "feather"), [(0.02, 0.02), (0.3, 0.3), (0.5, 0.5), (0.98, 0.02), (0.5, 0.02)])
def test_no_setting_shows_the_room_or_hides_the_person(threshold: float, feather: float) -> None:
    table = Options(threshold=threshold, feather=feather).steep
    assert table[0] == 0
    assert table[255] == 255
    assert (np.diff(table.astype(int)) >= 0).all()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"threshold": 0.0}, "threshold: got 0, expected 0.02 to 0.98"),
        ({"threshold": float("nan")}, "threshold: got nan"),
        ({"feather": 0.6}, "feather: got 0.6, expected 0.02 to 0.5 at this threshold"),
        ({"threshold": 0.8, "feather": 0.3}, "feather: got 0.3, expected 0.02 to 0.2"),
        ({"feather": float("nan")}, "feather: got nan"),
    ],
)
def test_an_edge_that_cannot_be_is_refused(wanted: dict[str, float], message: str) -> None:
    with pytest.raises(BadOption, match=message):
        Options(**wanted)  # type: ignore[arg-type]  # all of them are numbers


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"threshold": "half"}, "threshold: got 'half', expected a number"),
        ({"decontaminate": ""}, "decontaminate: got '', expected one of true, 1, false, 0"),
        ({"framing": "yes"}, "framing: got 'yes', expected one of true, 1, false, 0"),
    ],
)
def test_options_written_wrongly_are_refused(texts: dict[str, str], message: str) -> None:
    with pytest.raises(BadOption, match=message):
        Options().changed(texts)
