"""How many streams a box takes: what each is expected to cost, what they really take, and who is refused."""

import asyncio
import json
from asyncio import timeout
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from portrait.admission.capacity import Capacity, Limits
from portrait.admission.cost_model import PIXELS, SIZES, CostModel, Demand
from portrait.admission.quality import Quality
from portrait.core.compositors import MODES
from portrait.core.segmenters import Models
from portrait.errors import OutOfCpu
from portrait.metrics import Metrics
from portrait.server.calibration import load_costs, make_costs
from portrait.workers.shared_state import SharedState
from tests.fakes import FakeModel, full_mask

FULL, STILL, ALTERNATE, SMALLER, SLOWER = Quality

# What a stream costs.

PARTS = {
    "segment big": (0.002, 0.002, 0.004),
    "segment small": (0.001, 0.001, 0.002),
    **{f"compose {mode}": (0.001, 0.001, 0.003) for mode in MODES},
    **{f"{way} {codec}": (0.001, 0.002, 0.005) for way in ("decode", "encode") for codec in ("jpeg", "vp8")},
}


def make_models(*names: str) -> Models:
    models = {}
    for name in names:
        models[name] = FakeModel(full_mask)
        models[name].name = name  # type: ignore[misc]
    return Models(models, names[0])


@pytest.fixture
def costs() -> CostModel:
    return make_costs(PARTS, make_models("big", "small"))


def test_a_cheaper_model_of_the_same_size_stands_in(costs: CostModel) -> None:
    assert costs.smaller == {"big": "small"}


def test_sizes_between_lie_on_the_line_and_beyond_in_proportion(costs: CostModel) -> None:
    assert costs.part("encode vp8", 100) == 0.001
    assert costs.part("encode vp8", (PIXELS[0] + PIXELS[1]) // 2) == pytest.approx(0.0015)
    assert costs.part("encode vp8", 2 * PIXELS[2]) == pytest.approx(0.010)
    assert costs.part("encode av1", 100) == 0.0


@pytest.mark.parametrize("transport", ["webrtc", "grpc"])
def test_each_step_makes_a_stream_cheaper_or_leaves_it(costs: CostModel, transport: str) -> None:
    demand = Demand(transport, "blur", "big")
    cores = [costs.cores(demand, quality) for quality in Quality]
    assert cores[FULL] == cores[STILL] > cores[ALTERNATE] > cores[SMALLER] > cores[SLOWER] > 0
    exact = replace(demand, adaptive=False)
    assert {costs.cores(exact, quality) for quality in Quality} == {cores[FULL]}


def test_a_mask_costs_less_than_a_picture(costs: CostModel) -> None:
    assert costs.cores(Demand("grpc", "mask", "big"), FULL) < costs.cores(Demand("grpc", "blur", "big"), FULL)


# Admission.


@dataclass
class Running:
    """A session as capacity sees it."""

    demand: Demand
    age: float | None = 0.01
    settled: bool = True

    @property
    def done_rate(self) -> float:
        return self.demand.rate

    def believe(self) -> None:
        self.believed += 1

    believed: int = 0


def make_capacity(costs: CostModel, board: SharedState, streams: Iterable[Running], lowest: Quality = FULL) -> Capacity:
    capacity = Capacity(costs, board, Limits(budget=2.0, share=0.8, lowest=lowest), Metrics())
    capacity.list_open = lambda: streams
    return capacity


def test_streams_are_admitted_until_the_share_is_taken(costs: CostModel) -> None:
    streams: list[Running] = []
    demand = Demand("webrtc", "blur", "big")
    capacity = make_capacity(costs, SharedState(), streams)
    while (refusal := capacity.refusal(demand)) is None:
        streams.append(Running(demand))
    each = costs.cores(demand, FULL)
    assert len(streams) == int(1.6 / each) > 3
    assert isinstance(refusal, OutOfCpu)
    assert refusal.retry_after > 0
    assert f"of 1.60 cores are taken; one more such stream takes {each:.2f}" in str(refusal)


def test_more_are_admitted_where_quality_may_go_down(costs: CostModel) -> None:
    demand = Demand("webrtc", "blur", "big")
    counts = []
    for lowest in (FULL, SLOWER):
        streams: list[Running] = []
        capacity = make_capacity(costs, SharedState(), streams, lowest)
        while capacity.refusal(demand) is None:
            streams.append(Running(demand))
        counts.append(len(streams))
    assert counts[1] >= 1.4 * counts[0]


def test_the_first_stream_of_a_box_always_fits(costs: CostModel) -> None:
    huge = Demand("webrtc", "blur", "big", pixels=10**8)
    capacity = make_capacity(costs, SharedState(), [])
    assert capacity.refusal(huge) is None


def test_what_the_other_workers_hold_counts(costs: CostModel, tmp_path: Path) -> None:
    boards = [SharedState(tmp_path, index, 2) for index in range(2)]
    demand = Demand("webrtc", "blur", "big")
    capacity = make_capacity(costs, boards[0], [])
    boards[1].tell(committed=1.55)
    assert capacity.refusal(demand) is not None
    boards[1].tell(committed=1.0)
    assert capacity.refusal(demand) is None
    for board in boards:
        board.close()


def test_what_streams_really_take_corrects_what_was_expected(costs: CostModel) -> None:
    demand = Demand("webrtc", "blur", "big")
    board, streams = SharedState(), [Running(demand)] * 3
    capacity = make_capacity(costs, board, streams)
    expected = 3 * costs.cores(demand, FULL)
    for i in range(50):
        capacity._note(float(i), used=1.5 * expected, lag=0.0)
    assert board.rows[0].committed == pytest.approx(1.5 * expected, rel=0.01)
    streams[0] = Running(demand, settled=False)  # a new one has not shown what it takes
    capacity._note(50.0, used=0.1 * expected, lag=0.0)
    assert board.rows[0].committed == pytest.approx(1.5 * expected, rel=0.01)


def test_a_box_under_pressure_at_its_lowest_quality_admits_nobody(costs: CostModel) -> None:
    capacity = make_capacity(costs, SharedState(), [Running(Demand("grpc", "mask", "big"), age=0.2)], STILL)
    assert capacity.refusal(Demand("grpc", "mask", "big")) is None
    for i in range(5):
        capacity._note(float(i), used=0.1, lag=0.0)
    assert capacity.quality == STILL
    refusal = capacity.refusal(Demand("grpc", "mask", "big"))
    assert refusal is not None
    assert "as low as it may go" in str(refusal)


def test_a_stream_is_believed_to_want_less_only_while_nothing_presses(costs: CostModel) -> None:
    """A gRPC client that is answered late sends less; the next one must not be admitted for it."""
    stream = Running(Demand("grpc", "mask", "big"))
    capacity = make_capacity(costs, SharedState(), [stream], SLOWER)
    capacity._note(0.0, used=0.1, lag=0.0)
    assert stream.believed == 1
    capacity._note(1.0, used=1.95, lag=0.0)
    capacity._note(2.0, used=1.95, lag=0.0)
    assert capacity.quality > FULL
    capacity._note(3.0, used=0.1, lag=0.0)
    assert stream.believed == 1


async def test_a_second_that_cannot_be_understood_is_not_the_last_one_that_is_looked_at(
    costs: CostModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("portrait.admission.capacity.PERIOD", 0.5)
    board = SharedState()
    capacity = make_capacity(costs, board, [Running(Demand("telepathy", "mask", "big"))])
    watch = asyncio.create_task(capacity.watch())
    await logged(caplog, "quality and room could not be looked at")
    capacity.list_open = lambda: [Running(Demand("grpc", "mask", "big"))]
    async with timeout(60):
        while not board.rows[0].committed:
            await asyncio.sleep(0.05)
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


async def logged(caplog: pytest.LogCaptureFixture, words: str) -> None:
    async with timeout(60):
        while words not in caplog.text:
            await asyncio.sleep(0.05)


def test_calibration_measures_every_part_and_is_kept_for_this_machine(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = load_costs(models)
    names = {f"segment {name}" for name in models.by_name} | {f"compose {mode}" for mode in MODES}
    assert first.parts.keys() == names | {"decode jpeg", "encode jpeg", "decode vp8", "encode vp8"}
    assert all(len(figures) == len(SIZES) and min(figures) > 0 for figures in first.parts.values())
    (kept,) = (tmp_path / "portrait").iterdir()
    monkeypatch.setattr("portrait.server.calibration.measure", lambda _: pytest.fail("measured again"))
    assert load_costs(models).parts == first.parts
    monkeypatch.setattr("portrait.server.calibration.measure", lambda _: first.parts.items())
    for damaged in ("", "[]", "null", json.dumps({"segment portrait": [1]})):
        kept.write_text(damaged)
        assert load_costs(models).parts == first.parts
