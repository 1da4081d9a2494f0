"""MediaPipe's network with a prior: the file's own numbers, whatever its normalisation looks like."""

import copy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from tests.people import shown_person
from training import label, model, selfie
from training.held import Held, interleaved
from training.layers import ConvBN, folded

PEERS = Path(__file__).parents[2] / "peers"
FILES = [("selfie_segmentation", 256, 256), ("selfie_segmentation_landscape", 144, 256)]


def made_up() -> selfie.Selfie:
    """A network of random weights that says something of a picture."""
    torch.manual_seed(0)
    network = selfie.Selfie()
    for layer in network.modules():
        if isinstance(layer, ConvBN):
            layer.conv.weight.data *= torch.rand(len(layer.conv.weight), 1, 1, 1) * 3 + 0.1
            layer.bn.running_var.fill_(1 - layer.bn.eps)
            layer.bn.bias.data.normal_(0, 0.3)
    return network.eval()


def shown(height: int, width: int) -> torch.Tensor:
    picture = cv2.resize(shown_person().image, (width, height)).astype(np.float32) / 255
    return torch.from_numpy(picture)[None].permute(0, 3, 1, 2)


@pytest.mark.parametrize(("name", "height", "width"), FILES)
def test_the_network_says_what_the_file_says(name: str, height: int, width: int) -> None:
    path = PEERS / f"{name}.tflite"
    if not path.exists():
        pytest.skip(f"{path} is fetched by `make peers/selfie_segmentation.tflite`")
    network, teacher, picture = selfie.load(path), label.Teacher(path), shown(height, width)
    expected = teacher._person(picture[0].permute(1, 2, 0).numpy())
    with torch.no_grad():
        outputs = network.quarters(picture, torch.zeros(1, 1, height, width))
        found = torch.sigmoid(nn.functional.pixel_shuffle(outputs, 2))[0, 0].numpy()
    assert 0.1 < expected.mean() < 0.9
    assert np.abs(found - expected).max() < 1e-4


def test_batch_normalisation_is_put_back_without_changing_what_the_network_says() -> None:
    network = made_up()
    inputs = [(torch.rand(2, 3, 64, 96), torch.rand(2, 1, 64, 96)) for _ in range(3)]
    before = copy.deepcopy(network)
    assert selfie.is_folded(network)
    selfie.normalise(network, inputs)
    assert not selfie.is_folded(network)
    layers = [layer for layer in network.modules() if isinstance(layer, ConvBN)]
    lengths = torch.cat([layer.conv.weight.flatten(1).norm(dim=1) for layer in layers])
    # Channels that never change are left as they are.
    assert float(((lengths - 1).abs() < 1e-4).float().mean()) > 0.8
    for image, prior in inputs:
        with torch.no_grad():
            assert torch.allclose(network(image, prior), before(image, prior), atol=1e-3)
            assert torch.allclose(folded(copy.deepcopy(network))(image, prior), before(image, prior), atol=1e-3)


def test_the_prior_starts_without_a_say_and_can_learn_one() -> None:
    network = made_up()
    image, full = torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(image, full), network(image, 0 * full))
    network(image, full).sum().backward()
    assert float(network.prior.weight.grad.abs().max()) > 0


def test_the_probability_of_a_file_is_the_sigmoid_of_the_logit() -> None:
    network = made_up()
    image, prior = torch.rand(1, 3, 64, 96), torch.rand(1, 1, 64, 96)
    with torch.no_grad():
        expected = torch.sigmoid(network(image, prior)).permute(0, 2, 3, 1)
        found = Held(network)(image.permute(0, 2, 3, 1), prior.permute(0, 2, 3, 1))["mask"]
    assert torch.allclose(found, expected, atol=1e-6)


def test_four_channels_are_interleaved_as_a_pixel_shuffle_does() -> None:
    quarters = torch.rand(1, 4, 5, 7)
    expected = nn.functional.pixel_shuffle(quarters, 2).permute(0, 2, 3, 1)
    assert torch.equal(interleaved(quarters.permute(0, 2, 3, 1)), expected)


def test_enlarging_after_the_convolution_gives_the_same_numbers_as_before() -> None:
    torch.manual_seed(0)
    stage = selfie.Stage(8, 4).eval()
    x, skip = torch.rand(1, 8, 5, 6), torch.rand(1, 4, 10, 12)
    with torch.no_grad():
        up = stage.up(nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
        pooled = (up + skip).mean((2, 3), keepdim=True)
        weight = torch.sigmoid(stage.expand(nn.functional.relu(stage.squeeze(pooled))))
        mixed = stage.mix(skip * weight + up)
        assert torch.allclose(stage(x, skip), mixed + stage.refine(mixed), atol=1e-5)


def test_weights_named_by_the_files_tensors_are_read(tmp_path: Path) -> None:
    network = made_up()
    selfie.normalise(network, [(torch.rand(2, 3, 64, 64), torch.zeros(2, 1, 64, 64))])
    arrays = {f"prior.{key}": getattr(network.prior, key).detach().numpy() for key in ("weight", "bias")}
    for number, layer in enumerate(selfie.convolutions(network)):
        conv = layer.conv if isinstance(layer, ConvBN) else layer
        arrays[f"conv.{number}.weight"] = conv.weight.detach().numpy()
        if not isinstance(layer, ConvBN):
            arrays[f"conv.{number}.bias"] = conv.bias.detach().numpy()
            continue
        # Theirs have another epsilon, so another scale for the same function.
        scale = ((layer.bn.running_var + 1e-5) / (layer.bn.running_var + layer.bn.eps)).sqrt()
        arrays[f"norm.{number}.weight"] = (layer.bn.weight * scale).detach().numpy()
        for key in ("bias", "running_mean", "running_var"):
            arrays[f"norm.{number}.{key}"] = getattr(layer.bn, key).detach().numpy()
    np.savez(tmp_path / "weights.npz", **arrays)
    image, prior = torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.allclose(selfie.load(tmp_path / "weights.npz")(image, prior), network(image, prior), atol=1e-4)


def test_a_file_of_other_layers_is_refused() -> None:
    path = PEERS.parent / "service" / "portrait" / "models" / "portrait-int8.tflite"
    with pytest.raises(ValueError, match=r"portrait-int8\.tflite.*expected"):
        selfie.load(path)


def test_the_network_has_the_parameters_of_the_file_and_the_priors() -> None:
    network = model.build("selfie")
    layers = list(selfie.convolutions(network))
    kernels = sum((layer.conv if isinstance(layer, ConvBN) else layer).weight.numel() for layer in layers)
    biases = sum((layer.conv if isinstance(layer, ConvBN) else layer).weight.shape[0] for layer in layers)
    assert kernels + biases == 106_404
    assert sum(value.numel() for value in network.prior.parameters()) == 24 * 65
