"""The network, its losses, its data and its export. Synthetic pictures; a few steps."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from portrait.segmenters import EMBEDDED, open_model
from tests.people import DATA, drawn_person, room
from training import evaluate, export, losses, model, priors
from training.data import Batches, Portraits, load_backgrounds

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of drawn people in the layout training reads."""
    place = tmp_path_factory.mktemp("data")
    for name in ("images", "masks", "backgrounds"):
        (place / name).mkdir()
    lines = ["name,split"]
    for i in range(8):
        person = drawn_person()
        behind = cv2.resize(room(240, 320, seed=i), (240, 320))
        shown = np.where(person.mask[..., None] > 0, person.image, behind)
        cv2.imwrite(str(place / "images" / f"self_{i:04d}.jpg"), shown)
        cv2.imwrite(str(place / "masks" / f"self_{i:04d}.png"), person.mask)
        cv2.imwrite(str(place / "backgrounds" / f"room_{i}.jpg"), behind)
        lines.append(f"self_{i:04d},{'val' if i > 5 else 'train'}")
    (place / "index.csv").write_text("\n".join(lines) + "\n")
    return place


def test_the_papers_network_has_the_papers_size() -> None:
    network = model.build("pplcnet")
    assert network.count_params() == 137_634
    assert round(model.count_macs(network) / 1e6, 1) == 45.4
    assert network.output.shape == (None, 224, 224, 1)
    assert {name: tensor.shape[1:] for name, tensor in network.input.items()} == {
        "image": (224, 224, 3),
        "prior": (224, 224, 1),
    }


def test_the_shipped_networks_size_is_what_its_card_says() -> None:
    network = model.build("mobilenetv2")
    assert network.count_params() == 101_186
    assert round(model.count_macs(network) / 1e6, 1) == 48.1


def test_a_network_without_prior_has_one_input() -> None:
    assert list(model.build("pplcnet", prior=False).input) == ["image"]


def test_a_size_that_does_not_fit_the_strides_is_refused() -> None:
    with pytest.raises(ValueError, match="size is 100; expected a multiple of 16"):
        model.build(size=100)


def test_losses_match_sums_made_by_hand() -> None:
    truth = np.zeros((1, 4, 4, 1), np.float32)
    truth[:, :, :2] = 1
    half = np.full((1, 4, 4, 1), 0.5, np.float32)
    assert float(losses.cross_entropy(truth, half)[0]) == pytest.approx(np.log(2), abs=1e-5)
    # 8 true pixels at 0.5 overlap by 4; the union is 8 + 8 - 4; plus one.
    assert float(losses.jaccard(truth, half)[0]) == pytest.approx(1 - 4 / 13, abs=1e-6)
    assert float(losses.jaccard(truth, truth)[0]) == pytest.approx(1 - 8 / 9, abs=1e-6)


def test_the_boundary_band_lies_around_the_contour() -> None:
    truth = np.zeros((1, 64, 64, 1), np.float32)
    truth[:, :, 32:] = 1
    band = np.asarray(losses.boundary(truth))[0, 32, :, 0]
    assert np.flatnonzero(band).tolist() == list(range(25, 39))
    wrong_inside = truth.copy()
    wrong_inside[:, :, 60:] = 0
    assert float(losses.boundary_jaccard(truth, wrong_inside)[0]) == float(losses.boundary_jaccard(truth, truth)[0])


def test_shares_of_priors_sum_to_one_and_come_out() -> None:
    rng = np.random.default_rng(0)
    for shares in (priors.PAPER, priors.STEADY):
        assert sum(shares.values()) == pytest.approx(1.0)
        kinds = np.concatenate([priors.choose(rng, 32, shares) for _ in range(300)])
        for kind, share in shares.items():
            assert np.mean(kinds == kind) == pytest.approx(share, abs=0.02)


def test_every_kind_of_prior_looks_as_it_should() -> None:
    mask = cv2.resize(drawn_person().mask, (224, 224), interpolation=cv2.INTER_NEAREST)
    other = np.zeros_like(mask)
    other[:50, :50] = 255
    rng = np.random.default_rng(0)

    def overlap(kind: str) -> list[float]:
        made = [priors.from_truth(kind, mask, other, rng) for _ in range(40)]
        return [evaluate.iou(mask > 127, one > 127) for one in made]

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
    picture = room(224, 224)
    warped = priors.distorted(picture, 1)
    assert warped.shape == picture.shape
    assert np.abs(warped.astype(int) - picture).mean() > 1


def make_batches(folder: Path, seed: int = 1) -> Batches:
    return Batches(
        Portraits(folder, "train"), load_backgrounds(folder), size=96, batch=10, steps=2, weights={"other": 1.0},
        shares=priors.STEADY, paste=0.5, empty=0.2, webcam=True, seed=seed,
    )  # fmt: skip


def test_batches_are_the_same_for_a_seed_however_many_threads_make_them(folder: Path) -> None:
    one = list(make_batches(folder).epoch(3, workers=1))
    two = list(make_batches(folder).epoch(3, workers=4))
    other = list(make_batches(folder, seed=2).epoch(3))
    for a, b in zip(one, two, strict=True):
        for name in ("image", "prior", "mask", "own", "distorted"):
            assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert not np.array_equal(one[0].image, other[0].image)


def test_a_batch_has_the_shapes_and_ranges_it_promises(folder: Path) -> None:
    batch = make_batches(folder).make(0, 0)
    assert batch.image.shape == (10, 96, 96, 3)
    assert batch.mask.shape == batch.prior.shape == (10, 96, 96, 1)
    assert batch.distorted.shape == (3, 96, 96, 3)
    assert len(batch.own) == 3
    assert not batch.prior[batch.own].any()
    for array in (batch.image, batch.mask, batch.prior):
        assert array.dtype == np.float32
        assert 0.0 <= array.min() <= array.max() <= 1.0


def test_a_split_without_pictures_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="lists no picture of the split 'test'"):
        Portraits(folder, "test")


def test_iou_is_what_it_is_called() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert evaluate.iou(a, b) == 1.0
    a[:2], b[1:3] = True, True
    assert evaluate.iou(a, b) == pytest.approx(4 / 12)


def test_a_training_learns_resumes_exports_and_runs_in_the_service(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training.train", "paper", "--data", str(folder), "--steps", "4"]
    run = tmp_path / "run"
    for epochs in ("1", "2"):
        subprocess.run([*command, "--epochs", epochs, "--out", str(run)], cwd=ROOT, check=True)
    log = (run / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in log] == ["epoch", "1", "2"], "the second call went on after the first epoch"
    first_loss, second_loss = (float(line.split(",")[1]) for line in log[1:])
    assert second_loss < first_loss
    assert json.loads((run / "state.json").read_text())["config"]["encoder"] == "pplcnet"

    network = export.load(run, "last")
    data = export.convert(network)
    pictures = [Portraits(folder, "val")[i][0] for i in range(2)]
    assert export.largest_difference(network, data, pictures) < export.TOLERANCE
    (tmp_path / "mine.tflite").write_bytes(data)
    loaded = open_model(tmp_path / "mine.tflite")
    assert (loaded.width, loaded.height, loaded.stateful) == (224, 224, True)


def test_an_export_that_differs_is_noticed(folder: Path) -> None:
    network = model.build("pplcnet")
    data = export.convert(network)
    head = network.get_layer(model.HEAD)
    kernel, bias = head.get_weights()
    head.set_weights([kernel, bias + 0.01])
    pictures = [Portraits(folder, "val")[0][0]]
    assert export.largest_difference(network, data, pictures) > export.TOLERANCE
    head.set_weights([kernel * np.nan, bias])
    assert export.largest_difference(network, data, pictures) == float("inf")


def test_the_remapped_head_is_the_transposed_convolution() -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(16, 16, 1, 1)).astype(np.float32)
    layer = keras.layers.Conv2DTranspose(1, 16, 8, "same", use_bias=False)
    inputs = rng.normal(size=(1, 5, 7, 1)).astype(np.float32)
    layer.build(inputs.shape)
    layer.set_weights([kernel])
    expected = np.asarray(layer(inputs))[0, ..., 0]
    convolved = np.asarray(keras.ops.conv(inputs, export.remap_head(kernel), padding="same"))[0]
    blocks = convolved.reshape(5, 7, 8, 8).transpose(0, 2, 1, 3).reshape(40, 56)
    assert np.abs(blocks - expected).max() < 1e-4


@pytest.mark.skipif(not DATA.exists(), reason="the val split is not part of the repository")
def test_the_embedded_model_reaches_the_iou_its_card_states() -> None:
    scores = evaluate.evaluate(evaluate.tflite_segment(EMBEDDED / "portrait.tflite"), Portraits(DATA, "val"))
    measured = evaluate.portrait_iou(scores)
    card = json.loads((EMBEDDED / "portrait.json").read_text())
    assert measured >= 0.91
    assert round(100 * measured, 2) == pytest.approx(card["val_iou_portrait"], abs=0.05)
