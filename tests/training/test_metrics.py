"""Metrics against cases counted by hand."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from portrait.core.segmenters import EMBEDDED
from training import evaluate, evaluate_video, metrics, sequences, served, smoothing
from training.data import Portraits


def block(rows: slice, columns: slice, size: int = 100) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[rows, columns] = True
    return mask


def test_iou() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert metrics.iou(a, b) == 1.0
    a[:2], b[1:3] = True, True
    assert metrics.iou(a, b) == pytest.approx(4 / 12)


def test_pooled_miou() -> None:
    truth, found = block(slice(0, 50), slice(None)), block(slice(0, 25), slice(None))
    counts = metrics.confusion(truth, found)
    assert counts.tolist() == [2500, 2500, 0, 5000]
    assert metrics.pooled_miou(counts + counts) == pytest.approx(0.5 * (0.5 + 5000 / 7500))


def test_boundary_f_forgives_what_the_diagonal_allows_and_nothing_more() -> None:
    # 0.008 of the diagonal of 100x100 is 1.13 pixels: two are forgiven, as DAVIS rounds up.
    truth = block(slice(30, 70), slice(30, 70))
    assert metrics.boundary_f(truth, truth) == 1.0
    assert metrics.boundary_f(truth, block(slice(32, 68), slice(30, 70))) == 1.0
    assert metrics.boundary_f(truth, block(slice(33, 67), slice(30, 70))) < 1.0
    assert metrics.boundary_f(truth, block(slice(40, 60), slice(40, 60))) == 0.0
    nobody = np.zeros((100, 100), bool)
    assert metrics.boundary_f(nobody, nobody) == 1.0
    assert metrics.boundary_f(truth, nobody) == metrics.boundary_f(nobody, truth) == 0.0


def test_boundary_f_is_the_harmonic_mean_of_both_ways() -> None:
    truth = block(slice(30, 70), slice(0, 100))
    half = block(slice(30, 70), slice(0, 50))
    # Of the true contour (two lines of 100) half is found; of the found one nothing but the vertical side is wrong.
    recall = 2 * 52 / 200
    found = 2 * 50 + 38 + 2
    precision = (2 * 50 + 4) / found
    assert metrics.boundary_f(truth, half) == pytest.approx(2 * precision * recall / (precision + recall), abs=0.02)


def test_the_bootstrap_interval_holds_the_mean_and_shrinks_with_more_pictures() -> None:
    values = np.random.default_rng(0).normal(0.9, 0.05, 400)
    low, high = metrics.bootstrap(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 0.05 / 20, rel=0.2)
    wide = metrics.bootstrap(values[:25])
    assert wide[1] - wide[0] > 2 * (high - low)


def test_dtssd_is_the_change_the_truth_does_not_have() -> None:
    truths = [block(slice(0, 50), slice(None))] * 3
    steady = [truth.astype(np.float32) for truth in truths]
    assert evaluate_video.dtssd(truths, steady) == 0.0
    flickering = [steady[0], 0.5 * steady[0], steady[0]]
    # Half of the pixels change by 0.5: the root of 0.125.
    assert evaluate_video.dtssd(truths, flickering) == pytest.approx(100 * np.sqrt(0.125))


def test_a_mask_that_moves_with_the_picture_has_no_warp_error() -> None:
    rng = np.random.default_rng(0)
    before = np.clip(rng.normal(0.5, 0.2, (40, 60)), 0, 1).astype(np.float32)
    after = np.roll(before, 3, axis=1)
    flow = np.zeros((40, 60, 2), np.float32)
    flow[..., 0] = -3
    valid = np.ones((40, 60), bool)
    valid[:, :3] = False
    assert evaluate_video.warp_error(before, after, flow, valid) < 1e-6
    assert evaluate_video.warp_error(before, before, flow, valid) > 0.1


def test_a_lagging_mask_is_called_so() -> None:
    truths = [block(slice(20, 60), slice(5 * i, 5 * i + 20)) for i in range(14)]
    assert evaluate_video.lag(truths, truths) == 0
    assert evaluate_video.lag(truths, [truths[0], truths[0], *truths[:-2]]) == 2


def test_an_average_keeps_its_share_and_one_euro_follows_what_is_fast() -> None:
    zero, one = np.zeros((2, 2)), np.ones((2, 2))
    average = smoothing.Average(0.7)
    assert [float(average(mask)[0, 0]) for mask in (one, zero, zero)] == pytest.approx([1.0, 0.7, 0.49])
    euro = smoothing.OneEuro(beta=5.0)
    euro(zero)
    jump = float(euro(one)[0, 0])
    calm = smoothing.OneEuro(beta=5.0)
    calm(zero)
    nudge = float(calm(0.01 * one)[0, 0]) / 0.01
    assert jump > 2 * nudge


@pytest.fixture(scope="module")
def generated(folder: Path) -> list[sequences.Sequence]:
    return list(sequences.generated(folder, count=1))


def test_generated_sequences_are_what_their_kind_says(generated: list[sequences.Sequence]) -> None:
    kinds = [f"{sequence.kind} {sequence.condition}" for sequence in generated]
    assert kinds == ["still raw", "still vp8", "still h264", "slow raw", "fast raw", "cut raw"]
    for sequence in generated:
        assert len(sequence.frames) == len(sequence.truths) == sequences.FRAMES
        assert {frame.shape for frame in sequence.frames} == {(240, 320, 3)}
    still, _, _, slow, fast, cut = generated
    assert all(np.array_equal(a, b) for a, b in pairwise(still.truths))
    assert not np.array_equal(still.frames[0], still.frames[1])

    def travelled(sequence: sequences.Sequence) -> float:
        return float(np.ptp([np.flatnonzero(truth.any(0)).mean() for truth in sequence.truths]))

    assert travelled(fast) > 5 * travelled(slow) > 0
    assert [bool(truth.any()) for truth in cut.truths] == [i < sequences.CUT for i in range(sequences.FRAMES)]


def test_compressed_frames_are_alike_and_as_many(generated: list[sequences.Sequence]) -> None:
    raw, vp8, h264 = generated[:3]
    for packed in (vp8, h264):
        errors = [np.abs(a.astype(int) - b).mean() for a, b in zip(raw.frames, packed.frames, strict=True)]
        assert 0.5 < np.mean(errors) < 12


class Scripted:
    """A file that knows the answers, later by some frames, or never says that anybody has left."""

    takes_prior = False

    def __init__(self, sequence: sequences.Sequence, late: int = 0, clings: bool = False) -> None:
        self._answers = {frame.tobytes(): i for i, frame in enumerate(sequence.frames)}
        self._truths, self._late, self._clings = sequence.truths, late, clings

    def __call__(self, frame: np.ndarray, prior: np.ndarray | None = None) -> np.ndarray:
        number = self._answers[frame.tobytes()] - self._late
        truth = self._truths[max(0, number)]
        if self._clings and not truth.any():
            truth = self._truths[0]
        return truth.astype(np.float32)


def figures(sequence: sequences.Sequence, **script: int | bool) -> dict[str, float]:
    file = Scripted(sequence, **script)
    return evaluate_video.measure(lambda: evaluate_video.Stream(file), [(sequence, None)])


def test_a_perfect_mask_scores_so_and_neither_lag_nor_ghost_goes_unseen(generated: list[sequences.Sequence]) -> None:
    still, _, _, slow, fast, cut = generated
    assert figures(still) == {"flips": 0.0, "flips raw": 0.0}
    assert figures(slow) == {"slow": 100.0}
    assert figures(fast) == {"fast": 100.0, "lag": 0.0}
    late = figures(fast, late=2)
    assert late["lag"] == 2.0
    assert late["fast"] < 85
    assert figures(cut) == {"ghost": 0.0, "empty": 0.0, "gone": 0.0}
    # "Late" shows the person for two frames more, also to a first frame: it is what it always sees there.
    clinging = figures(cut, clings=True)
    assert clinging["ghost"] > 99
    assert clinging["empty"] > 99


def test_clips_are_read_with_their_masks(folder: Path) -> None:
    (clip,) = sequences.clips(folder)
    assert (clip.name, clip.kind, len(clip.frames)) == ("walk", "clip", 8)
    material = [(clip, evaluate_video.flows(clip.frames))]
    file = Scripted(clip)
    found = evaluate_video.measure(lambda: evaluate_video.Stream(file), material)
    assert found["IoU"] == found["F"] == 100.0
    assert found["dtSSD"] == 0.0
    assert found["E_warp"] < 50


def test_a_folder_without_clips_has_none(folder: Path) -> None:
    assert list(sequences.clips(folder / "images")) == []


def test_scores_are_grouped_by_part() -> None:
    def score(part: str, value: float) -> evaluate.Scores:
        return evaluate.Scores(part, value, value, np.array([1, 0, 0, 1]))

    found = evaluate.summary([score("coco", 0.2), score("self", 0.8), score("face", 1.0)])
    assert list(found) == ["portrait", "wild", "face", "self", "coco"]
    assert (found["portrait"]["iou"], found["wild"]["iou"], found["portrait"]["pictures"]) == (90.0, 20.0, 2)
    assert found["coco"]["miou"] == 100.0


def test_a_served_stream_is_the_file_with_the_services_rules(folder: Path) -> None:
    file, model = evaluate.File(EMBEDDED / "portrait.tflite"), EMBEDDED / "portrait.tflite"
    sequence = next(s for s in sequences.generated(folder, count=1) if s.kind == "cut")
    stream, last = served.Stream(model), None
    for i, frame in enumerate(sequence.frames):
        shown = stream(frame)
        # After the cut the service asks without a prior.
        last = file(frame, None if i == sequences.CUT else last)
        expected = cv2.resize(last, sequences.SIZE)
        assert shown.shape == expected.shape
        assert np.mean((shown > 0.5) != (expected > 0.5)) < 0.02


def test_a_served_still_stands_alone_and_is_looked_at_several_times(folder: Path) -> None:
    image, mask = Portraits(folder, "val")[0]
    path = str(EMBEDDED / "portrait-fine.tflite")
    several, once = evaluate.still(path), evaluate.still(path, once=True)
    first = several(image)
    assert first.shape == mask.shape
    assert not np.array_equal(first, once(image))
    several(np.ascontiguousarray(image[::-1]))
    assert np.array_equal(several(image), first), "no still is the prior of another"
    assert np.array_equal(evaluate.still("auto")(image), first)
