"""Runtimes: one body for every one that is installed, and every kind of file that is no model."""

import importlib.util
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from portrait.core.segmenters import EMBEDDED, load_models, open_model
from portrait.core.segmenters.tflite import HALF_PRECISION, RUNTIMES, TFLiteModel, find_runtime
from portrait.errors import BadModel, BadOption, SegmentationFailed
from portrait.image.convert import frame_from_bgr
from portrait.image.frame import Frame, Mask, Timestamp
from tests.people import clip, iou, room

EMBEDDED_FILE = EMBEDDED / "portrait.tflite"


@pytest.fixture(params=RUNTIMES)
def loaded(request: pytest.FixtureRequest) -> TFLiteModel:
    if importlib.util.find_spec(RUNTIMES[request.param].split(".")[0]) is None:
        pytest.skip(f"{request.param} is not installed in this environment; make test runs the other one too")
    return TFLiteModel(EMBEDDED_FILE, request.param)


def frames(number: int = 0, count: int = 8, size: tuple[int, int] = (640, 480)) -> list[Frame]:
    return [
        frame_from_bgr(picture, Timestamp(i, Fraction(1, 30)), i / 30)
        for i, picture in enumerate(clip(*size, count, number).frames)
    ]


def test_masks_have_the_models_size_and_find_the_person(loaded: TFLiteModel) -> None:
    shown = clip(640, 480, 8)
    segmenter = loaded.open()
    for frame, truth in zip(frames(), shown.masks, strict=True):
        mask = segmenter.segment(frame)
        assert mask.values.shape == (loaded.height, loaded.width)
        assert mask.values.dtype == np.uint8
        found = np.asarray(cv2.resize(mask.values, (640, 480)), np.uint8)
        assert iou(truth, found) > 0.8


def test_half_precision_is_for_litert_alone(loaded: TFLiteModel) -> None:
    """It changes nothing on x86-64: `make arm64-test` has masks that are made with it."""
    assert (HALF_PRECISION in loaded._data) == (loaded.runtime == "litert")


def test_an_empty_room_has_nobody_in_it(loaded: TFLiteModel) -> None:
    frame = frame_from_bgr(np.full((480, 640, 3), 190, np.uint8), Timestamp(0, Fraction(1)), 0.0)
    assert np.mean(loaded.open().segment(frame).values > 127) < 0.02


def test_two_streams_never_share_their_prior(loaded: TFLiteModel) -> None:
    alone = [mask.values for mask in map(loaded.open().segment, frames(0))]
    one, other = loaded.open(), loaded.open()
    for expected, mine, theirs in zip(alone, frames(0), frames(1), strict=True):
        other.segment(theirs)
        assert np.array_equal(one.segment(mine).values, expected)


def test_the_prior_counts_and_reset_forgets_it(loaded: TFLiteModel) -> None:
    shown = frames(count=6)
    segmenter = loaded.open()
    first = segmenter.segment(shown[0]).values
    again = segmenter.segment(shown[0]).values
    assert not np.array_equal(first, again)
    segmenter.reset()
    assert np.array_equal(segmenter.segment(shown[0]).values, first)


@pytest.mark.parametrize("size", [(641, 361), (17, 501), (2, 2), (1, 1)])
def test_any_size_can_be_segmented(loaded: TFLiteModel, size: tuple[int, int]) -> None:
    frame = frame_from_bgr(room(*size), Timestamp(0, Fraction(1)), 0.0)
    assert loaded.open().segment(frame).values.shape == (loaded.height, loaded.width)


def test_strided_planes_give_the_same_mask(loaded: TFLiteModel) -> None:
    frame = frames(count=1)[0]
    padded = [np.pad(plane, ((0, 0), (0, 24)))[:, : plane.shape[1]] for plane in (frame.y, frame.u, frame.v)]
    strided = Frame(*padded, frame.timestamp, frame.arrived)
    assert not strided.y.flags.contiguous
    assert np.array_equal(loaded.open().segment(strided).values, loaded.open().segment(frame).values)


def test_an_unknown_model_name_lists_the_known_ones() -> None:
    with pytest.raises(BadOption, match=r"unknown model 'nope'; expected one of \['portrait'"):
        load_models().pick("nope")


def test_the_default_model_can_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.tflite").write_bytes(EMBEDDED_FILE.read_bytes())
    models = load_models(str(tmp_path / "mine.tflite"))
    assert models.default == "mine"
    assert models.pick(None).name == "mine"
    assert models.pick("portrait").name == "portrait"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.tflite", b"this is no network at all", "no TFLite file: bytes 4..8 are b' is '"),
        ("empty.tflite", b"", "no TFLite file"),
        ("broken.tflite", b"\0\0\0\0TFL3" + bytes(200), "cannot load it"),
        ("model.onnx", b"", r"unknown suffix '.onnx'; expected one of"),
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadModel, match=message):
        open_model(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="cannot be read: No such file"):
        open_model(tmp_path / "gone.tflite")


def test_a_model_with_other_tensors_is_refused_naming_them() -> None:
    other = Path(__file__).parent / "samples" / "other_tensors.tflite"
    with pytest.raises(BadModel, match=r"has x \(1, 8\) float32 -> y \(1, 4\) float32; expected inputs image"):
        open_model(other)


def test_a_model_without_prior_runs_stateless() -> None:
    model = open_model(Path(__file__).parent / "samples" / "stateless.tflite")
    assert not model.stateful
    assert (model.width, model.height) == (32, 16)
    segmenter, frame = model.open(), frames(count=1)[0]
    first: Mask = segmenter.segment(frame)
    assert first.values.shape == (16, 32)
    assert np.array_equal(segmenter.segment(frame).values, first.values)


def test_a_network_that_gives_nan_fails_instead_of_a_mask() -> None:
    segmenter = open_model(Path(__file__).parent / "samples" / "nan.tflite").open()
    with pytest.raises(SegmentationFailed, match=r"values outside 0\.\.1"):
        segmenter.segment(frames(count=1)[0])


def test_a_missing_runtime_is_refused_naming_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, "litert", "not_installed.anywhere")
    with pytest.raises(BadModel, match="no TFLite runtime: tried litert; install ai-edge-litert or tflite-runtime"):
        find_runtime("litert")
