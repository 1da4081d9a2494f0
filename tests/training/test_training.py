"""A training of a few steps learns, resumes, repeats itself, exports and runs in the service."""

import csv
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import litert_torch
import pytest
import torch

from portrait.core.segmenters import EMBEDDED, open_model
from tests.people import DATA
from training import evaluate, evaluate_video, export, losses, measure, model, speed, table, train
from training.configs import CONFIGS, Config
from training.data import Pictures, Portraits
from training.train import Trainer
from training.watch import Watch

ROOT = Path(__file__).parents[2]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_training_resumes_exports_and_runs_in_the_service(
    folder: Path, tmp_path: Path, command: Callable[..., None]
) -> None:
    place = tmp_path / "run"
    training = ["paper", "--data", folder, "--steps", "1", "--out", place, "--epochs"]
    first = [sys.executable, "-m", "training.train", *map(str, training), "1"]
    subprocess.run(first, cwd=ROOT, check=True)  # as its users start it, with a process that makes batches
    command(train, *training, "2", "--workers", "0")
    log = rows(place)
    assert [line["epoch"] for line in log] == ["1", "2"], "the second call went on after the first epoch"
    assert json.loads((place / "state.json").read_text())["config"]["network"] == "paper"

    command(export, place, tmp_path / "mine.tflite", "--data", folder)
    loaded = open_model(tmp_path / "mine.tflite")
    assert (loaded.width, loaded.height, loaded.stateful) == (224, 224, True)
    command(evaluate, tmp_path / "mine.tflite", "--data", folder, "--json", tmp_path / "scores.json")
    (scores,) = json.loads((tmp_path / "scores.json").read_text()).values()
    assert scores["portrait"]["pictures"] == 2


SHORT = dataclasses.replace(CONFIGS["paper"], sizes=((0, 32, 32),), epochs=1, steps=1, batch=2)


def test_the_same_seed_trains_the_same_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., None]
) -> None:
    monkeypatch.setitem(CONFIGS, "paper", SHORT)
    states = []
    for name in ("one", "two"):
        command(train, "paper", "--data", folder, "--steps", "2", "--workers", "0", "--out", tmp_path / name)
        states.append(torch.load(tmp_path / name / "weights.pt", weights_only=True))
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def trainer(config: Config, folder: Path, out: Path) -> Trainer:
    return Trainer(config, Pictures([folder]), [], out, look=lambda *_: {}, workers=0)


def test_a_training_learns(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    learning = dataclasses.replace(
        SHORT, network="selfie", sizes=((0, 64, 64),), epochs=5, steps=8, batch=8, learning_rate=5e-3
    )
    trainer(learning, folder, tmp_path).run()
    lost = [float(line["loss"]) for line in rows(tmp_path)]
    assert lost[-1] < lost[0] - 0.1


def test_a_run_of_another_network_or_schedule_is_not_gone_on_with(folder: Path, tmp_path: Path) -> None:
    trainer(SHORT, folder, tmp_path).run()
    longer = trainer(dataclasses.replace(SHORT, epochs=3), folder, tmp_path)
    assert longer.resume(), "the paper's schedule does not depend on where it ends"
    assert longer.epoch == 1
    for other, refusal in (
        ({"network": "sinet"}, "got network paper, expected sinet"),
        ({"learning_rate": 0.5}, r"got learning_rate 0\.001, expected 0\.5"),
        ({"schedule": "cosine", "epochs": 2}, "got epochs 1, expected 2, schedule exponential, expected cosine"),
    ):
        with pytest.raises(ValueError, match=refusal):
            trainer(dataclasses.replace(SHORT, **other), folder, tmp_path).resume()


def test_a_loss_that_is_no_number_changes_no_weight(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trainer(SHORT, folder, tmp_path)
    before = {name: value.clone() for name, value in run.network.named_parameters()}
    monkeypatch.setattr(losses, "portrait_loss", lambda logits, *_: logits.mean() * torch.nan)
    run.run()
    assert "the loss is nan, the step is left out" in capsys.readouterr().out
    assert all(torch.equal(value, before[name]) for name, value in run.network.named_parameters())


def test_a_run_that_is_killed_while_it_saves_goes_on_after_the_epoch_before(folder: Path, tmp_path: Path) -> None:
    longer = dataclasses.replace(SHORT, epochs=2)
    trainer(SHORT, folder, tmp_path).run()
    (tmp_path / "last.pt.new").write_bytes(b"half a checkpoint")
    again = trainer(longer, folder, tmp_path)
    assert again.resume()
    again.run()
    assert [line["epoch"] for line in rows(tmp_path)] == ["1", "2"]


def test_averaged_weights_get_batch_statistics_of_their_own(folder: Path, tmp_path: Path) -> None:
    run = trainer(dataclasses.replace(SHORT, average=0.9), folder, tmp_path)
    before = [value.clone() for name, value in run.average.module.named_buffers() if name.endswith("running_mean")]
    weights = [value.clone() for value in run.average.module.parameters()]
    run._settle()
    after = [value for name, value in run.average.module.named_buffers() if name.endswith("running_mean")]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(weights, run.average.module.parameters(), strict=True))


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("exponential", [1.0, 1.0, 0.9**5, 0.9**10]),
        ("cosine", [0.01, 0.5, 0.5868, 0.0]),
        ("linear", [0.01, 0.5, 5 / 9, 0.0]),
        ("constant", [0.01, 0.5, 1.0, 1.0]),
    ],
)
def test_the_learning_rate_follows_its_schedule(schedule: str, shares: list[float]) -> None:
    found = [train.share(schedule, done, 10) for done in (0.0, 0.5, 5.0, 10.0)]
    assert found == pytest.approx(shares, abs=1e-3)


def test_a_run_says_what_decides_besides_the_loss(folder: Path, tmp_path: Path) -> None:
    look = Watch(folder, Portraits(folder, "val"))
    found = look(model.build("paper").eval(), 64, 64)
    assert set(found) == {"portrait", "f", "widescreen", "flips", "empty"}
    assert 0 <= found["empty"] <= 100
    assert 0 <= found["flips"] <= 10_000


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_file_of_other_inputs_or_none_is_refused_by_its_name(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.tflite"
    wrong.write_text("not a model")
    with pytest.raises(ValueError, match=r"wrong\.tflite: .*; expected is a TFLite file"):
        evaluate.File(wrong)
    with pytest.raises(ValueError, match=r"missing\.tflite: .*; expected is a TFLite file"):
        evaluate.File(tmp_path / "missing.tflite")
    other = tmp_path / "other.tflite"
    litert_torch.convert(torch.nn.Conv2d(2, 1, 1).eval(), (torch.zeros(1, 2, 8, 8),)).export(str(other))
    with pytest.raises(ValueError, match=r"other\.tflite takes inputs of \[\[1, 2, 8, 8\]\]; expected are \(1,H,W,3\)"):
        evaluate.File(other)


@pytest.mark.parametrize("module", [speed, evaluate_video], ids=lambda module: module.__name__)
def test_two_files_of_one_name_are_refused_where_the_name_tells_them_apart(
    module: ModuleType, command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        command(module, "runs/one/model.tflite", "runs/two/model.tflite")
    assert "of one name came" in capsys.readouterr().err


def test_figures_measured_without_the_runs_keep_what_is_known_of_the_trainings(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    monkeypatch.setattr(table, "RUNS", tmp_path / "kept")
    facts = {"parameters": 5, "macs": 7, "size": [192, 192], "curve": []}
    table.store("portrait", {"val": {}, **facts})
    shipped = {"portrait": EMBEDDED / "portrait.tflite"}
    measure.measure_masks(shipped, shipped, tmp_path / "runs", folder)
    stored = table.stored("portrait")
    assert stored["val"]["portrait"]["pictures"] == 2
    assert {name: stored[name] for name in facts} == facts
    assert not any(label.startswith("framing") for label in stored["slices"]), "the index has no such column"


@pytest.mark.skipif(not DATA.exists(), reason="the val split is not part of the repository")
def test_the_embedded_model_reaches_the_figures_its_card_states() -> None:
    card = table.stored("portrait")
    measured = evaluate.summary(evaluate.evaluate(evaluate.File(EMBEDDED / "portrait.tflite"), Portraits(DATA, "val")))
    assert measured["portrait"]["iou"] >= 91
    for group, figures in card["val"].items():
        assert measured[group]["iou"] == pytest.approx(figures["iou"], abs=0.05), group
