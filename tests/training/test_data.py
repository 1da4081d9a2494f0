"""Pictures, priors and batches."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.people import room, shown_person
from training import augment, metrics, priors
from training.data import Batches, Mix, Pictures, Portraits, beside, choose_label, load_backgrounds, over, rooms_beside


def test_shares_of_priors_sum_to_one_and_come_out() -> None:
    rng = np.random.default_rng(0)
    for shares in (priors.PAPER, priors.STEADY):
        assert sum(shares.values()) == pytest.approx(1.0)
        kinds = np.concatenate([priors.choose(rng, 32, shares) for _ in range(300)])
        for kind, share in shares.items():
            assert np.mean(kinds == kind) == pytest.approx(share, abs=0.02)


def test_rooms_are_what_lies_beside_people(tmp_path: Path) -> None:
    """The person is red, the room green and blue; a picture full of person has none."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    (tmp_path / "index.csv").write_text("name,split\nself_0,train\nself_1,train\n")
    for number, (left, right) in enumerate([(80, 130), (20, 230)]):
        image, mask = np.zeros((200, 240, 3), np.uint8), np.zeros((200, 240), np.uint8)
        image[:, :left, 1], image[:, left:right, 2], image[:, right:, 0] = 200, 200, 200
        mask[:, left:right] = 255
        cv2.imwrite(str(tmp_path / "images" / f"self_{number}.jpg"), image)
        cv2.imwrite(str(tmp_path / "masks" / f"self_{number}.png"), mask)
    (room,) = (
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in rooms_beside(Pictures([tmp_path]))
    )
    assert room.shape == (165, 110, 3)
    assert np.abs(room.astype(int) - (200, 0, 0)).max(initial=0, where=np.arange(110)[:, None] > 8) < 30


def test_every_kind_of_prior_looks_as_it_should() -> None:
    mask = cv2.resize(shown_person().mask, (224, 224), interpolation=cv2.INTER_NEAREST)
    other = np.zeros_like(mask)
    other[:50, :50] = 255
    rng = np.random.default_rng(0)

    def overlap(kind: str) -> list[float]:
        made = [priors.from_truth(kind, mask, other, rng) for _ in range(40)]
        return [metrics.iou(mask > 127, one > 127) for one in made]

    assert not priors.from_truth("empty", mask, other, rng).any()
    assert min(overlap("small")) > 0.6
    assert np.mean(overlap("small")) > 0.85
    assert np.mean(overlap("major")) < 0.5
    another_person = [value for value in overlap("stale") if value < 0.05]
    trailing = [value for value in overlap("stale") if 0.4 < value < 1]
    assert len(another_person) > 5
    assert len(trailing) > 5
    nobody = np.zeros_like(mask)
    left = [priors.from_truth("small", nobody, other, rng).any() for _ in range(200)]
    assert np.mean(left) == pytest.approx(priors.LEFT, abs=0.1)


def test_pictures_for_self_prediction_are_warped_now_and_then_only_noisy() -> None:
    picture = cv2.GaussianBlur(room(224, 224), (0, 0), 3)
    rng = np.random.default_rng(0)
    differences = [np.abs(priors.distorted(picture, rng).astype(int) - picture).mean() for _ in range(40)]
    noise = np.abs(rng.normal(0, 7.5, picture.shape)).mean()
    only_noisy = np.mean(np.array(differences) < 1.1 * noise)
    assert min(differences) > 1
    assert 0.05 < only_noisy < 0.8


MIX = Mix(shares=priors.STEADY, strength=augment.FULL, paste=0.4, beside=0.3, empty=0.2)


def make_batches(
    folder: Path, mix: Mix = MIX, seed: int = 1, size: tuple[int, int] = (64, 96), batch: int = 12
) -> Batches:
    return Batches(Pictures([folder]), load_backgrounds(folder), mix, batch=batch, size=size, seed=seed)


def test_batches_are_the_same_for_a_seed_whoever_makes_them(folder: Path) -> None:
    batches = make_batches(folder)
    here = [batches[number] for number in range(2)]
    there = list(torch.utils.data.DataLoader(batches, batch_size=None, sampler=range(2), num_workers=2))
    other = make_batches(folder, seed=2)[0]
    for a, b in zip(here, there, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(here[0].image, here[1].image)
    assert not torch.equal(here[0].image, other.image)


def test_a_batch_has_the_shapes_and_types_it_promises(folder: Path) -> None:
    batch = make_batches(folder)[0]
    assert batch.image.shape == (12, 64, 96, 3)
    assert batch.label.shape == batch.prior.shape == batch.band.shape == (12, 64, 96)
    assert batch.own.sum() == 3
    assert batch.distorted.shape == (3, 64, 96, 3)
    assert not batch.prior[batch.own].any()
    assert {value.dtype for value in (batch.image, batch.label, batch.prior, batch.band)} == {torch.uint8}
    assert batch.label.max() == 255


def test_a_mix_without_self_prediction_has_nothing_to_predict(folder: Path) -> None:
    batch = make_batches(folder, Mix(shares={"empty": 1.0, "self": 0.0}))[0]
    assert not batch.own.any()
    assert batch.distorted.shape == (0, 64, 96, 3)


def test_a_label_is_the_teachers_where_they_mean_the_same_people() -> None:
    given = np.zeros((40, 40), np.uint8)
    given[:, 10:30] = 255
    soft, elsewhere = cv2.GaussianBlur(given, (5, 5), 0), np.roll(given, 15, axis=1)
    assert choose_label(given, None, 0.0) is given
    assert choose_label(given, soft, 0.9) is soft
    assert choose_label(given, elsewhere, 0.9) is given
    assert choose_label(None, soft, 0.9) is soft
    assert choose_label(None, soft, 0.5) is None, "the teachers do not agree with each other"
    assert choose_label(None, None, 0.0) is None


def test_rooms_without_people_have_an_empty_label(folder: Path) -> None:
    batch = make_batches(folder, Mix(empty=1.0))[0]
    assert not batch.label.any()
    assert batch.image.float().std() > 10


def test_a_warped_picture_and_its_label_stay_together_and_have_no_black_wedges() -> None:
    mask = cv2.resize(shown_person().mask, (300, 400), interpolation=cv2.INTER_NEAREST)
    picture = augment.together(np.dstack([mask // 2 + 100] * 3), mask)
    rng = np.random.default_rng(0)
    for strength in (augment.PAPER, augment.FULL, augment.CALM):
        for _ in range(20):
            image, label = augment.warp(picture, rng, 96, 128, strength)
            assert image.shape == (96, 128, 3)
            assert image.min() >= 98, "what is outside of the picture is reflected"
            # Pictures may be sampled where labels are averaged: a contour is a pixel apart.
            inside = cv2.erode((label > 250).astype(np.uint8), np.ones((5, 5))) > 0
            outside = cv2.dilate((label > 5).astype(np.uint8), np.ones((5, 5))) == 0
            assert (image[inside] > 220).all()
            assert (image[outside] < 105).all()


def test_a_label_that_gets_smaller_is_reduced_by_area() -> None:
    stripes = np.zeros((400, 400), np.uint8)
    stripes[:, ::2] = 255
    still = replace(augment.PAPER, scale=(1.0, 1.0), skew=0.0, turn=0.0, shift=0.0)
    picture = augment.together(np.dstack([stripes] * 3), stripes)
    _, label = augment.warp(picture, np.random.default_rng(0), 100, 100, still)
    assert np.abs(label.astype(int) - 128).max() <= 2


def test_half_of_the_cuts_are_as_wide_as_a_camera() -> None:
    rng = np.random.default_rng(0)
    cut = replace(augment.PAPER, scale=(1.0, 1.0), skew=0.0, turn=0.0, shift=0.0, cut=1.0)
    rows = np.repeat(np.arange(320)[:, None] * 255 // 320, 240, axis=1).astype(np.uint8)
    picture = augment.together(np.dstack([rows] * 3), rows)
    shown = [np.ptp(augment.warp(picture, rng, 64, 64, cut)[1].astype(int)) / 255 * 320 for _ in range(40)]
    shapes = 240 / np.array(shown)
    assert shapes.min() > 1.25
    assert np.median(shapes) > 1.5


def test_light_and_calls_change_a_picture_and_keep_what_it_shows() -> None:
    picture, rng = shown_person().image, np.random.default_rng(0)
    seen = []
    for _ in range(30):
        changed = augment.call(augment.light(picture, rng, augment.FULL), rng, augment.FULL)
        assert changed.shape == picture.shape
        assert changed.dtype == np.uint8
        grey, before = (cv2.cvtColor(one, cv2.COLOR_RGB2GRAY).ravel() for one in (changed, picture))
        seen.append(np.corrcoef(grey, before)[0, 1])
    assert np.median(seen) > 0.9
    assert min(seen) > 0.3


def test_a_pasted_person_keeps_their_pixels_and_nothing_else() -> None:
    person = shown_person()
    blue = np.full_like(person.image, (0, 0, 200))
    shown = over(person.image, person.mask, blue)
    assert np.abs(shown[person.mask > 0].astype(int) - person.image[person.mask > 0]).max() <= 1
    assert np.abs(shown[person.mask == 0].astype(int) - (0, 0, 200)).max() <= 1


def test_a_person_beside_stands_on_the_lower_edge_and_fits() -> None:
    person = shown_person()
    for seed in range(10):
        image, mask = beside(person.image, person.mask, np.random.default_rng(seed))
        assert image.shape == person.image.shape
        assert mask.shape == person.mask.shape
        assert 0 < np.count_nonzero(mask) < np.count_nonzero(person.mask) * 1.05


def test_every_tenth_room_is_kept_for_measuring(folder: Path) -> None:
    assert len(load_backgrounds(folder)) == 7
    assert load_backgrounds(folder / "clips") == []


def test_a_split_without_pictures_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="lists no picture of the split 'test'"):
        Portraits(folder, "test")


def test_a_folder_that_holds_no_data_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no .*index\.csv; expected is a folder with index\.csv"):
        Portraits(tmp_path, "train")
    (tmp_path / "index.csv").write_text("file,split\nself_0000,train\n")
    with pytest.raises(ValueError, match="has the columns file, split; expected are at least name and split"):
        Portraits(tmp_path, "train")


@pytest.mark.parametrize(
    ("mask", "refusal"),
    [
        (np.ones((40, 30), np.uint8), "self_0000: the mask's highest value is 1; expected 0 and 255"),
        (np.zeros((40, 31), np.uint8), r"self_0000: got an image of \(40, 30\) and a mask of \(40, 31\)"),
        (None, r"self_0000: got an image of \(40, 30\) and a mask of None; expected two that can be read"),
    ],
    ids=["0 and 1", "another size", "no picture"],
)
def test_a_bad_mask_is_refused_by_its_name(tmp_path: Path, mask: np.ndarray | None, refusal: str) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    (tmp_path / "index.csv").write_text("name,split\nself_0000,train\n")
    cv2.imwrite(str(tmp_path / "images" / "self_0000.jpg"), np.zeros((40, 30, 3), np.uint8))
    png = b"not a picture" if mask is None else cv2.imencode(".png", mask)[1].tobytes()
    (tmp_path / "masks" / "self_0000.png").write_bytes(png)
    with pytest.raises(ValueError, match=refusal):
        Portraits(tmp_path, "train")[0]
    with pytest.raises(ValueError, match="self_0000: " if mask is None else refusal):
        Pictures([tmp_path])
