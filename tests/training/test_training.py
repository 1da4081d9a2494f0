"""A training of a few steps learns, resumes, repeats itself, exports and runs in the service."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from portrait.segmenters import EMBEDDED, open_model
from tests.people import DATA
from training import evaluate, table
from training.data import Portraits

ROOT = Path(__file__).parents[2]


def run(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", *map(str, arguments)], cwd=ROOT, check=True)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_training_learns_resumes_exports_and_runs_in_the_service(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    for epochs in ("1", "2"):
        run("training.train", "paper", "--data", folder, "--steps", "4", "--epochs", epochs, "--out", place)
    log = rows(place)
    assert [line["epoch"] for line in log] == ["1", "2"], "the second call went on after the first epoch"
    assert float(log[1]["loss"]) < float(log[0]["loss"])
    assert json.loads((place / "state.json").read_text())["config"]["network"] == "paper"

    run("training.export", place, tmp_path / "mine.tflite", "--data", folder)
    loaded = open_model(tmp_path / "mine.tflite")
    assert (loaded.width, loaded.height, loaded.stateful) == (224, 224, True)
    run("training.evaluate", tmp_path / "mine.tflite", "--data", folder, "--json", tmp_path / "scores.json")
    (scores,) = json.loads((tmp_path / "scores.json").read_text()).values()
    assert scores["portrait"]["pictures"] == 2


def test_the_same_seed_trains_the_same_weights(folder: Path, tmp_path: Path) -> None:
    states = []
    for name in ("one", "two"):
        run("training.train", "paper", "--data", folder, "--steps", "2", "--epochs", "1", "--out", tmp_path / name)
        states.append(torch.load(tmp_path / name / "weights.pt", weights_only=True))
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.skipif(not DATA.exists(), reason="the val split is not part of the repository")
def test_the_embedded_model_reaches_the_figures_its_card_states() -> None:
    card = table.stored("portrait")
    measured = evaluate.summary(evaluate.evaluate(evaluate.File(EMBEDDED / "portrait.tflite"), Portraits(DATA, "val")))
    assert measured["portrait"]["iou"] >= 91
    for group, figures in card["val"].items():
        assert measured[group]["iou"] == pytest.approx(figures["iou"], abs=0.05), group
