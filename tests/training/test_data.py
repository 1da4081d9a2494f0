"""Pictures, priors and batches."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from portrait.core.segmenters import EMBEDDED
from tests.people import room, shown_person
from training import evaluate, metrics, priors
from training.data import Batch, Batches, Mix, Portraits, load_backgrounds, moved, pasted
from training.teacher import Teacher


def test_shares_of_priors_sum_to_one_and_come_out() -> None:
    rng = np.random.default_rng(0)
    for shares in (priors.PAPER, priors.STEADY):
        assert sum(shares.values()) == pytest.approx(1.0)
        kinds = np.concatenate([priors.choose(rng, 32, shares) for _ in range(300)])
        for kind, share in shares.items():
            assert np.mean(kinds == kind) == pytest.approx(share, abs=0.02)


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
    somebody_else = [value for value in overlap("stale") if value < 0.05]
    trailing = [value for value in overlap("stale") if 0.4 < value < 1]
    assert len(somebody_else) > 5
    assert len(trailing) > 5
    nobody = np.zeros_like(mask)
    left = [priors.from_truth("small", nobody, other, rng).any() for _ in range(200)]
    assert np.mean(left) == pytest.approx(priors.LEFT, abs=0.1)


def test_pictures_for_self_prediction_are_warped_now_and_then_only_noisy() -> None:
    picture = cv2.GaussianBlur(room(224, 224), (0, 0), 3)
    differences = [np.abs(priors.distorted(picture, seed).astype(int) - picture).mean() for seed in range(40)]
    noise = np.abs(np.random.default_rng(0).normal(0, 0.03 * 255, picture.shape)).mean()
    only_noisy = np.mean(np.array(differences) < 1.1 * noise)
    assert min(differences) > 1
    assert 0.05 < only_noisy < 0.6


MIX = Mix(shares=priors.STEADY, paste=0.4, beside=0.3, empty=0.2, webcam=True)


def make_batches(folder: Path, mix: Mix = MIX, seed: int = 1) -> Batches:
    return Batches(Portraits(folder, "train"), load_backgrounds(folder), mix, batch=10, steps=2, seed=seed)


def test_batches_are_the_same_for_a_seed_however_many_threads_make_them(folder: Path) -> None:
    one = list(make_batches(folder).epoch(3, (96, 96), workers=1))
    two = list(make_batches(folder).epoch(3, (96, 96), workers=4))
    other = list(make_batches(folder, seed=2).epoch(3, (96, 96)))
    for a, b in zip(one, two, strict=True):
        for name in ("image", "prior", "mask", "own", "distorted"):
            assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert not np.array_equal(one[0].image, other[0].image)


def test_a_batch_has_the_shapes_and_ranges_it_promises(folder: Path) -> None:
    batch = make_batches(folder).make(0, 0, (64, 96))
    assert batch.image.shape == (10, 64, 96, 3)
    assert batch.mask.shape == batch.prior.shape == (10, 64, 96, 1)
    assert batch.distorted.shape == (3, 64, 96, 3)
    assert len(batch.own) == 3
    assert not batch.prior[batch.own].any()
    for array in (batch.image, batch.mask, batch.prior):
        assert array.dtype == np.float32
        assert 0.0 <= array.min() <= array.max() <= 1.0


def test_a_mix_without_self_prediction_has_nothing_to_predict(folder: Path) -> None:
    mix = Mix(shares={"empty": 1.0, "self": 0.0})
    batch = make_batches(folder, mix).make(0, 0, (64, 96))
    assert len(batch.own) == 0
    assert batch.distorted.shape == (0, 64, 96, 3)


def test_a_teacher_softens_the_labels_of_its_parts_and_leaves_the_masks(folder: Path) -> None:
    def teacher(image: np.ndarray) -> np.ndarray:
        return np.full(image.shape[:2], 0.6, np.float32)

    def batch(taught: dict[str, float], empty: float = 0.0) -> Batch:
        mix = Mix(taught=taught, empty=empty)
        portraits, rooms = Portraits(folder, "train"), load_backgrounds(folder)
        return Batches(portraits, rooms, mix, batch=4, steps=1, seed=1, teacher=teacher).make(0, 0, (64, 64))

    plain, soft, other, room = batch({}), batch({"self": 0.5}), batch({"street": 0.5}), batch({"self": 0.5}, empty=1.0)
    assert np.array_equal(plain.label, plain.mask)
    assert np.array_equal(soft.mask, plain.mask)
    assert soft.label == pytest.approx(0.5 * plain.mask + 0.3)
    assert np.array_equal(other.label, other.mask), "no part of the teacher's"
    assert not room.label.any(), "nobody is there, whatever the teacher says"


def test_a_mix_that_wants_a_teacher_and_has_none_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"labels of \['self'\] softened by a teacher, but there is none"):
        make_batches(folder, Mix(taught={"self": 0.5}))


def test_a_model_file_is_a_teacher_for_several_threads() -> None:
    path = EMBEDDED / "portrait.tflite"
    teacher, picture = Teacher(path), shown_person().image
    with ThreadPoolExecutor(3) as pool:
        masks = list(pool.map(lambda _: teacher(picture), range(6)))
    assert masks[0].shape == picture.shape[:2]
    alone = cv2.resize(evaluate.File(path)(picture), picture.shape[1::-1])
    assert all(np.array_equal(mask, alone) for mask in masks)


def test_rooms_without_anybody_have_an_empty_mask(folder: Path) -> None:
    batch = make_batches(folder, Mix(empty=1.0)).make(0, 0, (64, 64))
    assert not batch.mask.any()
    assert batch.image.std() > 0.05


def test_a_pasted_person_keeps_their_pixels_and_nothing_else() -> None:
    person = shown_person()
    blue = np.full_like(person.image, (0, 0, 200))
    shown = pasted(person.image, person.mask, blue)
    inside = cv2.erode(person.mask, np.ones((5, 5))) > 0
    outside = cv2.dilate(person.mask, np.ones((5, 5))) == 0
    assert np.abs(shown[inside].astype(int) - person.image[inside]).max() <= 1
    assert np.abs(shown[outside].astype(int) - (0, 0, 200)).max() <= 1


def test_somebody_beside_stands_on_the_lower_edge_and_fits() -> None:
    person = shown_person()
    for seed in range(10):
        image, mask = moved(person.image, person.mask, (240, 320), np.random.default_rng(seed))
        assert image.shape == (240, 320, 3)
        assert mask.shape == (240, 320)
        assert 0 < np.count_nonzero(mask) < mask.size / 2


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
        (np.ones((40, 30), np.uint8), "self_0000: the mask's highest value is 1; expected are 0 and 255"),
        (np.zeros((40, 31), np.uint8), r"self_0000: an image of \(40, 30\) and a mask of \(40, 31\) came"),
        (None, r"self_0000: an image of \(40, 30\) and a mask of None came; expected are two that can be read"),
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
