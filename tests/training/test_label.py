"""Labels of teachers: made once, whole, and gone on with."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from training import label
from training.data import Pictures


class Sees:
    """A teacher who takes what is brighter than a value for the person, and counts what it is asked."""

    def __init__(self, above: float) -> None:
        self.above, self.asked = above, 0

    def __call__(self, image: np.ndarray) -> np.ndarray:
        self.asked += 1
        small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
        return (small.max(axis=2) > self.above).astype(np.float32)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures with a bright half, two to learn from, of which one has no mask."""
    place = tmp_path / "photos"
    for name in ("images", "unlabelled", "masks"):
        (place / name).mkdir(parents=True)
    image = np.zeros((90, 120, 3), np.uint8)
    image[:, 60:] = 220
    for folder, name in (("images", "self_0"), ("unlabelled", "news_1"), ("images", "self_2")):
        cv2.imwrite(str(place / folder / f"{name}.jpg"), image)
    cv2.imwrite(str(place / "masks" / "self_0.png"), image[..., 0] // 220 * 255)
    (place / "index.csv").write_text("name,split\nself_0,train\nnews_1,train\nself_2,val\n")
    return place


def test_every_picture_of_train_is_labelled_once(photos: Path, tmp_path: Path) -> None:
    target, teachers = tmp_path / "labels" / "photos", (Sees(128), Sees(128))
    found = label.find(photos)
    assert set(found) == {"self_0", "news_1"}
    label.label({"self_0": found["self_0"]}, *teachers, target)
    label.label(found, *teachers, target)
    assert [teacher.asked for teacher in teachers] == [2, 2], "what is labelled is not labelled again"
    assert {name: line["agreement"] for name, line in label.labelled(target).items()} == dict.fromkeys(found, "1.0")
    assert sorted(path.stem for path in (target / "general").iterdir()) == ["news_1", "self_0"]

    pictures = Pictures([photos], tmp_path / "labels")
    assert sorted(pictures.names) == ["news_1", "self_0"]
    assert sorted(Pictures([photos]).names) == ["self_0"], "without labels only what has a mask is learned from"
    for index in range(2):
        picture = pictures[index]
        assert picture.shape == (90, 120, 4)
        assert picture[:, 70:, 3].min() == 255
        assert picture[:, :50, 3].max() == 0


def test_pictures_on_which_teachers_disagree_are_left_out(photos: Path, tmp_path: Path) -> None:
    label.label(label.find(photos), Sees(128), Sees(250), tmp_path / "labels" / "photos")
    assert Pictures([photos], tmp_path / "labels").names == ["self_0"]


def test_pictures_of_other_licences_are_left_out(photos: Path, tmp_path: Path) -> None:
    rows = "name,split,licence\nself_0,train,research only\nnews_1,train,Apache-2.0\nself_2,val,Apache-2.0\n"
    (photos / "index.csv").write_text(rows)
    label.label(label.find(photos), Sees(128), Sees(128), tmp_path / "labels" / "photos")
    assert sorted(Pictures([photos], tmp_path / "labels").names) == ["news_1", "self_0"]
    assert Pictures([photos], tmp_path / "labels", ("Apache-2.0", "MIT")).names == ["news_1"]
    with pytest.raises(ValueError, match="no picture to learn from"):
        Pictures([photos], tmp_path / "labels", ("CC0",))


def test_a_line_that_was_not_written_to_its_end_is_made_again(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "labels"
    label.label(label.find(photos), Sees(128), Sees(128), target)
    table = target / "labels.csv"
    table.write_text(table.read_text().rstrip()[:-12])
    first, second = Sees(128), Sees(128)
    label.label(label.find(photos), first, second, target)
    assert first.asked == second.asked == 1
    assert set(label.labelled(target)) == {"self_0", "news_1"}


def test_agreement_and_doubt_are_counted() -> None:
    one, other = np.zeros((10, 10)), np.zeros((10, 10))
    one[:, :6], other[:, :4] = 1.0, 1.0
    found = label.compare(one, other)
    assert found["agreement"] == pytest.approx(4 / 6, abs=1e-4)
    assert found["person"] == 0.6, "where they disagree the multiclass model decides"
    assert found["unsure"] == pytest.approx(20 / 60, abs=1e-3)


def test_a_picture_that_is_listed_and_missing_is_told_by_its_name(photos: Path) -> None:
    (photos / "unlabelled" / "news_1.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="lists news_1"):
        label.find(photos)
