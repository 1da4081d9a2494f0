"""Streams look at the part of the picture around the person: where, how exactly, and that nobody is missed."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from portrait.core.segmenters import Models, Segmenter, load_models
from portrait.core.segmenters.roi import INTERVAL, LARGEST, SOONEST, RoiSegmenter, find_person
from portrait.image.convert import frame_from_bgr
from portrait.image.frame import Frame, Mask, Timestamp
from tests.people import Array, iou, person, room

SIZE = 192


class Watched:
    """A segmenter that notes the size of every frame it is given."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self.seen: list[tuple[int, int]] = []

    def segment(self, frame: Frame) -> Mask:
        self.seen.append((frame.width, frame.height))
        return self._segmenter.segment(frame)

    def reset(self) -> None:
        self._segmenter.reset()

    def resume(self, prior: Mask) -> None:
        self._segmenter.resume(prior)

    def close(self) -> None:
        self._segmenter.close()


class Bright:
    """A network without faults: the person is what is brighter than the middle."""

    def segment(self, frame: Frame) -> Mask:
        small = cv2.resize(frame.y, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        return Mask(np.asarray(np.clip(8 * (small.astype(int) - 128) + 128, 0, 255), np.uint8))

    def reset(self) -> None: ...

    def resume(self, prior: Mask) -> None:
        assert (prior.width, prior.height) == (SIZE, SIZE)

    def close(self) -> None: ...


def frame(picture: Array) -> Frame:
    return frame_from_bgr(picture, Timestamp(0, Fraction(1)), 0.0)


def shown(x: int, width: int = 150, size: tuple[int, int] = (640, 360), seed: int = 3) -> tuple[Array, Array]:
    """A person `width` pixels wide at the foot of a room, and where they are."""
    someone, picture = person(), room(*size, seed=seed)
    scale = width / someone.mask.shape[1]
    image, mask = (
        cv2.resize(p, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for p in (someone.image, someone.mask)
    )
    place = slice(size[1] - len(mask), size[1]), slice(x, x + mask.shape[1])
    picture[place] = np.where(mask[..., None] > 127, image, picture[place])
    truth = np.zeros(picture.shape[:2], np.uint8)
    truth[place] = mask
    return picture, truth


def full(mask: Mask, picture: Array) -> Array:
    return np.asarray(cv2.resize(mask.values, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


@pytest.fixture(scope="module")
def models() -> Models:
    return load_models()


@pytest.fixture
def watched(models: Models) -> Watched:
    return Watched(models.pick(None).open())


@pytest.fixture
def looking(watched: Watched) -> RoiSegmenter:
    return RoiSegmenter(watched, SIZE, SIZE)


@pytest.mark.parametrize(("x", "width"), [(20, 90), (200, 120), (350, 90), (200, 180)])
def test_a_person_far_away_is_seen_better_than_in_the_whole_picture(models: Models, x: int, width: int) -> None:
    picture, truth = shown(x, width)
    whole, part = models.pick(None).open(), models.pick_stream(None).open()
    for _ in range(4):
        seen = [full(segmenter.segment(frame(picture)), picture) for segmenter in (whole, part)]
    assert iou(truth, seen[1]) > iou(truth, seen[0])
    assert iou(truth, seen[1]) > 0.95


@pytest.mark.parametrize("size", [(640, 360), (333, 501), (1281, 721), (97, 64)])
@pytest.mark.parametrize("middle", [(0.3, 0.4), (0.02, 0.97), (0.9, 0.5)])
def test_a_part_lies_in_the_mask_where_it_lies_in_the_picture(
    size: tuple[int, int], middle: tuple[float, float]
) -> None:
    width, height = size
    picture = np.full((height, width, 3), 20, np.uint8)
    axes = max(4, width // 8), max(4, height // 8)
    cv2.ellipse(picture, (round(middle[0] * width), round(middle[1] * height)), axes, 0, 0, 360, (230, 230, 230), -1)
    whole, looking = Bright(), RoiSegmenter(watched := Watched(Bright()), SIZE, SIZE)
    looking.segment(frame(picture))
    found = looking.segment(frame(picture))
    assert watched.seen[1] != watched.seen[0]
    expected = whole.segment(frame(picture))
    assert iou(expected.values, found.values) > 0.95
    apart = cv2.absdiff(cv2.GaussianBlur(expected.values, (5, 5), 0), cv2.GaussianBlur(found.values, (5, 5), 0))
    assert apart.max() < 110  # half a pixel to the side is 60, a pixel is 120


def test_a_person_who_fills_the_picture_is_looked_at_as_before(looking: RoiSegmenter, watched: Watched) -> None:
    picture, _ = shown(150, 340)
    for _ in range(4):
        looking.segment(frame(picture))
    assert set(watched.seen) == {(640, 360)}


def test_an_empty_room_is_looked_at_as_a_whole(looking: RoiSegmenter, watched: Watched) -> None:
    for _ in range(4):
        looking.segment(frame(room(640, 360)))
    assert set(watched.seen) == {(640, 360)}


def test_the_box_stays_while_the_person_sways(looking: RoiSegmenter, watched: Watched) -> None:
    for step in range(SOONEST):
        looking.segment(frame(shown(300 + step, 120)[0]))
    assert len(set(watched.seen)) == 2


def test_the_box_follows_a_person_across_the_picture(models: Models, looking: RoiSegmenter) -> None:
    whole, found = models.pick(None).open(), []
    for x in range(40, 480, 20):
        picture, truth = shown(x, 120)
        found.append([iou(truth, full(s.segment(frame(picture)), picture)) for s in (whole, looking)])
    plain, followed = np.mean(found, axis=0)
    assert followed > plain
    assert min(part for _, part in found) > 0.6


def test_somebody_who_comes_in_elsewhere_is_seen_soon(looking: RoiSegmenter, watched: Watched) -> None:
    one, _ = shown(60, 120)
    for _ in range(SOONEST + 1):
        looking.segment(frame(one))
    other, truth = shown(460, 120)
    both = np.where(truth[..., None] > 127, other, one)
    for _ in range(SOONEST):
        mask = full(looking.segment(frame(both)), both)
    assert iou(truth[:, 400:], mask[:, 400:]) > 0.7


def test_the_whole_picture_is_looked_at_now_and_then(looking: RoiSegmenter, watched: Watched) -> None:
    picture, _ = shown(300, 120)
    for _ in range(3 * INTERVAL + 1):
        looking.segment(frame(picture))
    assert watched.seen.count((640, 360)) == 4
    assert len(watched.seen) == 3 * INTERVAL + 4


def test_after_a_cut_the_whole_picture_is_looked_at(looking: RoiSegmenter, watched: Watched) -> None:
    for _ in range(3):
        looking.segment(frame(shown(60, 120)[0]))
    looking.reset()
    picture, truth = shown(460, 120, seed=4)
    assert iou(truth, full(looking.segment(frame(picture)), picture)) > 0.8
    assert watched.seen[-1] == (640, 360)


def test_what_moves_fast_is_followed_though_its_prior_is_forgotten(looking: RoiSegmenter, watched: Watched) -> None:
    """The pipeline resets at every such frame."""
    for x in range(40, 140, 20):
        looking.reset()
        looking.segment(frame(shown(x, 120)[0]))
    assert watched.seen[0] == (640, 360)
    assert (640, 360) not in watched.seen[2:5]


@pytest.mark.parametrize("size", [(480, 640), (320, 180)])
def test_pictures_of_another_size_are_looked_at_as_a_whole(
    size: tuple[int, int], looking: RoiSegmenter, watched: Watched
) -> None:
    for _ in range(3):
        looking.segment(frame(shown(60, 120)[0]))
    looking.segment(frame(shown(60, 90, size)[0]))
    assert watched.seen[-1] == size


def test_it_continues_from_a_mask_made_elsewhere(looking: RoiSegmenter, watched: Watched) -> None:
    picture, truth = shown(300, 120)
    looking.resume(Mask(np.asarray(cv2.resize(truth, (SIZE, SIZE)), np.uint8)))
    assert iou(truth, full(looking.segment(frame(picture)), picture)) > 0.8
    assert watched.seen == [(640, 360)]


def test_boxes_are_inside_the_picture_and_even() -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        width, height = (int(n) for n in rng.integers(2, 900, 2))
        values = np.zeros((SIZE, SIZE), np.uint8)
        x, y = (int(n) for n in rng.integers(0, SIZE - 1, 2))
        values[y : y + int(rng.integers(1, SIZE)), x : x + int(rng.integers(1, SIZE))] = 255
        person = find_person(values)
        assert person is not None
        box = person.box_in(frame(np.zeros((height, width, 3), np.uint8)), 0.25)
        assert 0 <= box.left < box.right <= width
        assert 0 <= box.top < box.bottom <= height
        assert box.left % 2 == box.top % 2 == 0
        assert box.right % 2 == 0 or box.right == width
        assert box.bottom % 2 == 0 or box.bottom == height
    assert find_person(np.zeros((SIZE, SIZE), np.uint8)) is None
    assert 0 < LARGEST < 1


def test_a_wide_network_is_given_wide_boxes() -> None:
    values = np.zeros((144, 256), np.uint8)
    values[20:140, 120:140] = 255
    picture = frame(room(640, 360))
    person = find_person(values)
    assert person is not None
    box = person.box_in(picture, 0.25)
    assert (box.right - box.left) / (box.bottom - box.top) > 0.5 * 256 / 144 - 0.02
