"""The mean of several trainings' weights."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from training import average, export, model
from training.layers import ConvBN, folded

IMAGE, PRIOR = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)), torch.zeros(1, 1, 64, 64)


def network(seed: int) -> nn.Module:
    """A network whose batch normalisation has seen something."""
    torch.manual_seed(seed)
    made = model.build("selfie")
    for layer in made.modules():
        if isinstance(layer, ConvBN):
            for value in (layer.bn.running_var, layer.bn.weight.data):
                value.uniform_(0.5, 2.0)
            for value in (layer.bn.running_mean, layer.bn.bias.data):
                value.uniform_(-0.5, 0.5)
    return made.eval()


@torch.no_grad()
def test_folding_changes_no_output() -> None:
    made = network(1)
    assert torch.allclose(average.fold(made)(IMAGE, PRIOR), made(IMAGE, PRIOR), atol=1e-3)


@torch.no_grad()
def test_the_mean_of_one_network_with_itself_is_that_network() -> None:
    made = network(1)
    assert torch.allclose(average.average([made, made])(IMAGE, PRIOR), made(IMAGE, PRIOR), atol=1e-3)


@torch.no_grad()
def test_kernels_are_averaged_as_they_act() -> None:
    one, other = network(1), network(2)
    mean = folded(average.average([one, other]))
    for ours, a, b in zip(mean.modules(), folded(one).modules(), folded(other).modules(), strict=True):
        if isinstance(ours, ConvBN):
            assert torch.allclose(ours.conv.weight, (a.conv.weight + b.conv.weight) / 2, atol=1e-5)
            assert torch.allclose(ours.conv.bias, (a.conv.bias + b.conv.bias) / 2, atol=1e-5)


def test_the_command_writes_a_run(tmp_path: Path, command: Callable[..., None]) -> None:
    for seed, side in ((1, 64), (2, 96)):
        place = tmp_path / str(seed)
        place.mkdir()
        torch.save(network(seed).state_dict(), place / "weights.pt")
        config = {"network": "selfie", "epochs": 1, "sizes": [[0, side, side]]}
        (place / "state.json").write_text(json.dumps({"epoch": 1, "config": config}))
    command(average, tmp_path / "1", tmp_path / "2", tmp_path / "mean")
    made, height, width = export.load(tmp_path / "mean")
    assert (height, width) == (96, 96)
    expected = average.average([network(1), network(2)])
    with torch.no_grad():
        assert torch.allclose(made(IMAGE, PRIOR), expected(IMAGE, PRIOR), atol=1e-4)
