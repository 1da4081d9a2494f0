"""The networks are the size their papers say, and what is exported computes what was trained."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from portrait.core.segmenters.tflite import HALF_PRECISION
from tests.training.conftest import draw
from training import encoders, export, losses, model
from training.held import Held

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

# Parameters with batch statistics, and MACs in millions at 224x224: research on the paper's Table I.
SIZES = {
    "paper": (137_634, 45.4),
    "paper_without_prior": (135_986, 43.1),
    "mobilenetv2": (101_186, 48.1),
    "mobilenetv3_small": (205_498, 41.3),
    "efficientnetb0": (328_742, 164.0),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_papers_rows_have_the_papers_sizes(name: str) -> None:
    network = model.build(name)
    assert (model.count_parameters(network), round(model.count_macs(network, 224, 224) / 1e6, 1)) == SIZES[name]


@pytest.mark.parametrize(("name", "parameters"), [("sinet", 86_910), ("portraitnet", 2_079_600)])
def test_the_peers_have_the_parameters_their_papers_print(name: str, parameters: int) -> None:
    assert sum(value.numel() for value in model.build(name).parameters()) == parameters


@pytest.mark.parametrize("name", model.NETWORKS)
def test_every_network_gives_a_logit_for_every_pixel(name: str) -> None:
    network = model.build(name).eval()
    height, width = 3 * network.multiple, 4 * network.multiple
    inputs = [torch.rand(2, 3, height, width)] + ([torch.rand(2, 1, height, width)] if network.takes_prior else [])
    with torch.no_grad():
        assert network(*inputs).shape == (2, 1, height, width)


def test_imagenet_weights_fill_the_encoder_and_mean_the_same_for_pictures_in_0_to_1(tmp_path: Path) -> None:
    whole = encoders.mobilenetv2(deepest=32).eval()
    arrays, index = {}, {"conv2d": 0, "depthwise_conv2d": 0, "batch_normalization": 0}

    def add(kind: str, **values: torch.Tensor) -> None:
        number = index[kind]
        index[kind] += 1
        arrays.update({f"{kind}_{number}|{name}:0" if number else f"{kind}|{name}:0": v for name, v in values.items()})

    rng = np.random.default_rng(0)
    layers = [layer for block in whole.blocks for layer in block.modules() if isinstance(layer, encoders.ConvBN)]
    for layer in layers:
        weight = rng.normal(size=tuple(layer.conv.weight.shape)).astype(np.float32) / 3
        depthwise = layer.conv.groups > 1
        order = (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
        name = "depthwise_kernel" if depthwise else "kernel"
        add("depthwise_conv2d" if depthwise else "conv2d", **{name: weight.transpose(order)})
        channels = weight.shape[0]
        ones = np.ones(channels, np.float32)
        mean = rng.normal(size=channels).astype(np.float32)
        add("batch_normalization", gamma=ones, beta=0 * ones, moving_mean=mean, moving_variance=ones)
    np.savez(tmp_path / "weights.npz", **arrays)

    assert encoders.load_mobilenetv2_imagenet(whole, tmp_path / "weights.npz") == len(layers)
    assert encoders.load_mobilenetv2_imagenet(encoders.mobilenetv2(32, without=(2, 12)), tmp_path / "weights.npz") == 42
    stem = whole.blocks[0]
    picture = torch.rand(1, 3, 16, 16)
    original = copy.deepcopy(stem)
    original.conv.weight.data = torch.from_numpy(arrays["conv2d|kernel:0"].transpose(3, 2, 0, 1).copy())
    original.bn.running_mean.data = torch.from_numpy(arrays["batch_normalization|moving_mean:0"])
    with torch.no_grad():
        expected, got = original(2 * picture - 1), stem(picture)
    # The padded last row and column see 0 where the original saw 0.5.
    assert torch.allclose(got[..., :-1, :-1], expected[..., :-1, :-1], atol=1e-5)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "wrong.npz", **{"conv2d|kernel:0": np.zeros((3, 3, 3, 8), np.float32)},
             **{f"batch_normalization|{n}:0": np.zeros(8, np.float32)
                for n in ("gamma", "beta", "moving_mean", "moving_variance")})  # fmt: skip
    with pytest.raises(ValueError, match=r"the file has \(8, 3, 3, 3\) where the model wants \(16, 3, 3, 3\)"):
        encoders.load_mobilenetv2_imagenet(encoders.mobilenetv2(), tmp_path / "wrong.npz")


def test_losses_match_sums_made_by_hand() -> None:
    truth = torch.zeros(1, 1, 4, 4)
    truth[..., :2] = 1
    half, everywhere = torch.zeros(1, 1, 4, 4), torch.ones_like(truth)
    # 8 true pixels at 0.5 overlap by 4; the union is 8 + 8 - 4; one more above and below the line.
    assert float(losses.jaccard(torch.sigmoid(half), truth)) == pytest.approx(1 - 5 / 13, abs=1e-6)
    assert float(losses.jaccard(truth, truth)) == 0
    # A band that covers all 16 pixels makes both Jaccard terms the same, and its cross-entropy that of the picture.
    loss = losses.portrait_loss(half, truth, everywhere)
    assert float(loss) == pytest.approx(np.log(2) + 2 * (1 - 5 / 13), abs=1e-5)
    contour = losses.portrait_loss(half, truth, everywhere, 0.5)
    assert float(contour - loss) == pytest.approx(0.5 * 16 * np.log(2) / 17, abs=1e-5)
    # A softened label moves the cross-entropy alone.
    taught = losses.portrait_loss(everywhere, 0.6 * truth, everywhere) - losses.portrait_loss(
        everywhere, truth, everywhere
    )
    assert float(taught) == pytest.approx(8 * 0.4 * 1.0 / 16, abs=1e-5)


def test_a_room_without_people_teaches_through_every_term() -> None:
    for term in (losses.jaccard, lambda predicted, truth: losses.jaccard(predicted, truth, torch.ones_like(truth))):
        predicted = torch.full((1, 1, 8, 8), 0.5, requires_grad=True)
        term(predicted, torch.zeros(1, 1, 8, 8)).sum().backward()
        assert float(predicted.grad.min()) > 0


@pytest.mark.parametrize(("side", "width"), [(64, 5), (224, 15), (256, 17)])
def test_the_boundary_band_lies_around_the_contour_and_grows_with_the_picture(side: int, width: int) -> None:
    mask = np.zeros((side, side), np.uint8)
    mask[:, side // 2 :] = 255
    band = losses.boundary(mask)
    middle, half = side // 2, width // 2
    assert np.flatnonzero(band[middle]).tolist() == list(range(middle - half, middle + half))
    assert set(np.unique(band)) == {0, 255}
    truth, band = (torch.from_numpy(value)[None, None] / 255 for value in (mask, band))
    wrong_inside, wrong_at_the_contour = truth.clone(), truth.clone()
    wrong_inside[..., -2:] = 0
    wrong_at_the_contour[..., middle : middle + 2] = 0
    assert float(losses.jaccard(wrong_inside, truth, band)) == 0
    assert float(losses.jaccard(wrong_at_the_contour, truth, band)) > 0.1


def test_the_remapped_head_is_the_transposed_convolution() -> None:
    torch.manual_seed(0)
    head = torch.nn.ConvTranspose2d(1, 1, 16, 8, 4)
    coarse = torch.randn(1, 1, 5, 7)
    with torch.no_grad():
        assert torch.allclose(head(coarse), export.DepthToSpaceHead(head)(coarse), atol=1e-5)


@pytest.mark.parametrize(("name", "hold"), [("portrait", 0.0), ("selfie", 0.25)])  # 15 seconds of CPU each
def test_a_file_computes_what_the_network_computes_and_a_changed_network_is_noticed(name: str, hold: float) -> None:
    torch.manual_seed(0)
    network = model.build(name).eval()
    pictures = [draw(i)[0] for i in range(2)]
    data = export.convert(copy.deepcopy(network), 64, 96, hold)
    assert export.largest_difference(network, hold, data, pictures) < export.TOLERANCE
    assert HALF_PRECISION in data
    with torch.no_grad():
        network.head.bias += 0.01
    assert export.largest_difference(network, hold, data, pictures) > export.TOLERANCE
    with torch.no_grad():
        network.head.bias *= torch.nan
    assert export.largest_difference(network, hold, data, pictures) == float("inf")


class Fixed(torch.nn.Module):
    """A network that has already made up its mind."""

    takes_prior = True

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.logit = torch.logit(torch.tensor(probability))

    def forward(self, image: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        return self.logit.expand_as(prior)


@pytest.mark.parametrize(
    ("probability", "prior", "shown"),
    [
        (0.9, 0.0, 0.9),  # a person came
        (0.1, 1.0, 0.1),  # a person left: gone at once
        (0.52, 0.48, 0.4864),  # noise: 0.04 * 0.04 / 0.25 of it is believed, and no pixel changes sides
        (0.6, 0.0, 0.6),  # a first frame
    ],
)
def test_small_changes_are_held_back_and_large_ones_pass(probability: float, prior: float, shown: float) -> None:
    held = Held(Fixed(probability), 0.25)
    with torch.no_grad():
        mask = held(torch.zeros(1, 2, 2, 3), torch.full((1, 2, 2, 1), prior))["mask"]
    assert float(mask.mean()) == pytest.approx(shown, abs=1e-4)


def test_googles_file_is_exported_as_it_is_at_its_own_size() -> None:
    path = Path(__file__).parents[2] / "peers" / "selfie_segmentation_landscape.tflite"
    if not path.exists():
        pytest.skip(f"{path} is fetched by `make peers/selfie_segmentation.tflite`")
    network, height, width = export.load(path)
    assert (height, width) == (144, 256)
    assert not network.training
    assert not network.prior.weight.any()
