"""How many streams a box takes: what each is expected to cost, what they really take, and who is refused."""

import asyncio
import json
import time
from asyncio import timeout
from dataclasses import replace
from pathlib import Path

import pytest

from portrait.admission.capacity import Capacity, Limits, StreamLoad
from portrait.admission.cost_model import (
    PIXELS,
    SIZES,
    CostModel,
    Demand,
    assumed_demand,
    encoding_demand,
    viewer_demand,
)
from portrait.admission.quality import Delivery, Quality
from portrait.core.compositors import MODES, Options
from portrait.core.segmenters import Models
from portrait.errors import BadPicture, OutOfCpu
from portrait.image.frame import Frame, Mask
from portrait.metrics import Metrics
from portrait.server.calibration import load_costs, make_costs, measure
from portrait.sessions.registry import Sessions
from portrait.workers.shared_state import SharedState
from tests.fakes import FakeModel, full_mask, only
from tests.frames import FrameCodec, make_frame

FULL, STILL, ALTERNATE, SMALLER, SLOWER = Quality

# What a stream costs.

PARTS: dict[str, tuple[float, ...]] = {
    "segment big": (0.002, 0.002, 0.004),
    "segment small": (0.001, 0.001, 0.002),
    **{f"compose {mode}": (0.001, 0.001, 0.003) for mode in MODES},
    **{f"{way} {codec}": (0.001, 0.002, 0.005) for way in ("decode", "encode") for codec in ("jpeg", "png", "vp8")},
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
    assert costs.cheaper == {"big": "small"}


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


def test_a_still_is_charged_for_every_look(costs: CostModel, models: Models) -> None:
    once = assumed_demand("http", "blur", "big", Delivery.STILL)
    looks = models.looks(models.pick_still(None))
    several = replace(once, looks=looks)
    assert looks > 1
    assert costs.cores(several, FULL) - costs.cores(once, FULL) == pytest.approx((looks - 1) * 0.002)
    assert models.looks(models.pick("portrait-fine")) == models.looks(models.pick(None)) == 1


def test_viewers_are_charged_for_their_encoding(costs: CostModel) -> None:
    """Once for all, and each of them for its packets."""
    session, viewer, encoding = Demand("webrtc", "blur", "big"), viewer_demand(), encoding_demand()
    assert costs.cores(encoding, FULL) == pytest.approx(30 * costs.part("encode vp8", encoding.pixels))
    assert 0 < costs.cores(viewer, FULL) < costs.cores(encoding, FULL) / 4
    assert costs.cores(encoding_demand(1280 * 720), FULL) > 2 * costs.cores(encoding, FULL)
    capacity = make_capacity(costs, SharedState())
    alone, _ = fill(capacity, viewer)
    beside, _ = fill(make_capacity(costs, SharedState(), StreamLoad(session, OPENED)), viewer)
    assert beside < alone, "a session leaves less for viewers"
    assert capacity.refusal(session) is not None, "and viewers leave less for sessions"
    full = make_capacity(costs, SharedState(), StreamLoad(session, OPENED))
    while full.refusal(viewer, encoding) is None:
        full.add(StreamLoad(encoding, OPENED))
    assert full.refusal(viewer) is None, "what fits alone need not fit with an encoding"


def test_viewers_do_not_make_sessions_dearer(costs: CostModel) -> None:
    """Their encoders' time was taken for the sessions', whose price rose threefold."""
    now, session, viewer = OPENED + 10, Demand("webrtc", "blur", "big"), viewer_demand()
    loads = [running(session, now=now), *(running(viewer, now=now) for _ in range(30))]
    capacity = make_capacity(costs, SharedState(), *loads)
    used = costs.cores(session, FULL) + 30 * costs.cores(viewer, FULL)
    for _ in range(50):
        capacity._correct(now, used)
    assert capacity._correction == pytest.approx(1.0, abs=0.1)


# Admission.


OPENED = 1000.0
"""When the streams of these tests were opened, on the monotonic clock."""


def running(demand: Demand, *, now: float, rate: float | None = None, latency: float = 0.01) -> StreamLoad:
    """A stream that has run for the ten seconds before `now` and gets `rate` results per second, by default all."""
    load = StreamLoad(demand, now - 10.0)
    feed(load, now, rate or demand.rate, latency)
    return load


def feed(load: StreamLoad, now: float, rate: float, latency: float = 0.01) -> None:
    """Two seconds of results until `now`."""
    for i in range(round(2 * rate), -1, -1):
        load.add_result(now - i / rate, now - i / rate - latency, (640, 480))


def make_capacity(costs: CostModel, shared: SharedState, *loads: StreamLoad, lowest: Quality = FULL) -> Capacity:
    capacity = Capacity(costs, shared, Metrics(), Limits(budget=2.0, share=0.8, lowest=lowest))
    for load in loads:
        capacity.add(load)
    return capacity


def fill(capacity: Capacity, demand: Demand) -> tuple[int, OutOfCpu]:
    """Open such streams until one is refused."""
    count = 0
    while (refusal := capacity.refusal(demand)) is None:
        capacity.add(StreamLoad(demand, time.monotonic()))
        count += 1
    return count, refusal


def test_streams_are_admitted_until_the_share_is_taken(costs: CostModel) -> None:
    demand = Demand("webrtc", "blur", "big")
    count, refusal = fill(make_capacity(costs, SharedState()), demand)
    each = costs.cores(demand, FULL)
    assert count == int(1.6 / each) > 3
    assert refusal.retry_after > 0
    assert f"of 1.60 cores are taken; one more such stream takes {each:.2f}" in str(refusal)


def test_a_stream_that_has_ended_is_charged_for_no_longer(costs: CostModel) -> None:
    demand = Demand("webrtc", "blur", "big")
    capacity = make_capacity(costs, SharedState(), load := StreamLoad(demand, time.monotonic()))
    fill(capacity, demand)
    capacity.remove(load)
    assert capacity.refusal(demand) is None


def test_more_are_admitted_where_quality_may_go_down(costs: CostModel) -> None:
    demand = Demand("webrtc", "blur", "big")
    at_full, _ = fill(make_capacity(costs, SharedState(), lowest=FULL), demand)
    at_slower, _ = fill(make_capacity(costs, SharedState(), lowest=SLOWER), demand)
    assert at_slower >= 1.4 * at_full


def test_the_first_stream_of_a_box_always_fits(costs: CostModel) -> None:
    huge = Demand("webrtc", "blur", "big", pixels=10**8)
    assert make_capacity(costs, SharedState()).refusal(huge) is None


def test_a_still_is_charged_for_its_pixels_and_for_one_core_at_most(costs: CostModel) -> None:
    small, large, huge = (
        costs.cores(assumed_demand("http", "cutout", "big", Delivery.STILL, pixels), FULL)
        for pixels in (640 * 480, 5000 * 5000, 10**9)
    )
    assert large > 20 * small
    assert huge == 1.0


async def test_a_large_still_is_refused_where_a_small_one_fits(costs: CostModel) -> None:
    shared = SharedState()
    capacity = make_capacity(costs, shared, *(StreamLoad(Demand("webrtc", "blur", "big"), OPENED) for _ in range(6)))
    sessions = Sessions(only(FakeModel(full_mask)), 8, Metrics(), shared, capacity)
    async with sessions.open("http", FrameCodec(), Options("blur"), delivery=Delivery.STILL, pixels=640 * 480):
        pass
    with pytest.raises(OutOfCpu, match="one more such stream takes"):
        async with sessions.open("http", FrameCodec(), Options("blur"), delivery=Delivery.STILL, pixels=25_000_000):
            pass


def test_what_the_other_workers_hold_counts(costs: CostModel, tmp_path: Path) -> None:
    states = [SharedState(tmp_path, index, 2) for index in range(2)]
    demand = Demand("webrtc", "blur", "big")
    capacity = make_capacity(costs, states[0])
    states[1].tell(committed=1.55)
    assert capacity.refusal(demand) is not None
    states[1].tell(committed=1.0)
    assert capacity.refusal(demand) is None
    for state in states:
        state.close()


def test_what_streams_really_take_corrects_what_was_expected(costs: CostModel) -> None:
    demand = Demand("webrtc", "blur", "big")
    shared, loads = SharedState(), [running(demand, now=OPENED) for _ in range(3)]
    capacity = make_capacity(costs, shared, *loads)
    expected = 3 * costs.cores(demand, FULL)
    for _ in range(50):
        capacity._update(OPENED, used=1.5 * expected, lag=0.0)
    assert shared.rows[0].committed == pytest.approx(1.5 * expected, rel=0.01)
    capacity.add(StreamLoad(demand, OPENED))  # a new one has not shown what it takes
    capacity._update(OPENED, used=0.1 * expected, lag=0.0)
    assert shared.rows[0].committed == pytest.approx(4 / 3 * 1.5 * expected, rel=0.01)


def test_what_refused_frames_take_is_not_blamed_on_the_others(costs: CostModel) -> None:
    """They are decoded in full and then refused; the cost model knows that they are."""
    demand = Demand("webrtc", "blur", "big")
    shared, good, bad = SharedState(), running(demand, now=OPENED), StreamLoad(demand, OPENED - 10.0)
    for i in range(60, -1, -1):
        bad.add_refused(OPENED - i / 30, (3840, 2160))
    capacity = make_capacity(costs, shared, good, bad)
    decode = costs.part("decode vp8", 3840 * 2160) + 0.7 * costs.part("segment big", 640 * 480)
    for _ in range(50):
        capacity._update(OPENED, used=costs.cores(demand, FULL) + 30 * decode, lag=0.0)
    assert capacity._correction == pytest.approx(1.0, abs=0.05)


def test_a_box_under_pressure_at_its_lowest_quality_admits_no_more(costs: CostModel) -> None:
    demand = Demand("grpc", "mask", "big")
    capacity = make_capacity(costs, SharedState(), load := running(demand, now=OPENED, latency=0.2), lowest=STILL)
    assert capacity.refusal(demand) is None
    for i in range(5):
        feed(load, OPENED + i, 30, latency=0.2)
        capacity._update(OPENED + i, used=0.1, lag=0.0)
    assert capacity.quality == STILL
    refusal = capacity.refusal(demand)
    assert refusal is not None
    assert "as low as it may go" in str(refusal)


def test_a_stream_is_taken_to_want_less_only_while_nothing_presses(costs: CostModel) -> None:
    """A gRPC client that is answered late sends less; the next one must not be admitted for it."""
    demand = Demand("grpc", "mask", "big")
    capacity = make_capacity(costs, SharedState(), load := running(demand, now=OPENED, rate=10), lowest=SLOWER)
    capacity._update(OPENED, used=1.95, lag=0.0)
    assert load.demand(OPENED).rate == 30
    capacity._update(OPENED + 0.5, used=0.1, lag=0.0)
    assert load.demand(OPENED + 0.5).rate == pytest.approx(10)
    feed(load, OPENED + 3, 20)  # it may ask for more at any time
    assert load.demand(OPENED + 3).rate == pytest.approx(20)
    for second in (4, 5):
        capacity._update(OPENED + second, used=1.95, lag=0.0)
    assert capacity.quality > FULL
    feed(load, OPENED + 6, 2)
    capacity._update(OPENED + 6, used=0.1, lag=0.0)
    assert load.demand(OPENED + 6).rate == pytest.approx(10)


class TooLarge(FrameCodec):
    """Decodes every picture for 20 ms, as one of 3840x2160 takes, and refuses it then."""

    def decode(self, picture: Frame, arrived: float, options: Options) -> Frame:
        started = time.thread_time()
        while time.thread_time() - started < 0.02:
            pass
        raise BadPicture("frame", "too large", (3840, 2160))


async def test_a_camera_whose_every_frame_is_decoded_and_refused_is_charged_for(costs: CostModel) -> None:
    shared = SharedState()
    capacity = make_capacity(costs, shared, lowest=SLOWER)
    sessions = Sessions(only(FakeModel(full_mask)), 64, Metrics(), shared, capacity)
    async with sessions.open("webrtc", TooLarge(), Options("blur")) as session:
        for _ in range(60):
            with pytest.raises(BadPicture):
                await session.process(make_frame(), time.monotonic())
        now = time.monotonic()
        demand = session.load.demand(now)
        assert (demand.pixels, session.load.age(now)) == (3840 * 2160, None)
        assert len(session.load._arrivals) == 60
        capacity._update(now, used=1.0, lag=0.0)
        assert shared.rows[0].committed >= demand.rate * costs.part("decode vp8", 3840 * 2160)
        for second in range(1, 4):
            capacity._update(now + second, used=1.95, lag=0.0)
        assert capacity.quality > FULL


def test_what_is_refused_counts_as_arriving(costs: CostModel) -> None:
    load = StreamLoad(Demand("webrtc", "blur", "big"), OPENED - 10.0)
    for i in range(100, -1, -1):
        load.add_refused(OPENED - i / 50, (3840, 2160))
    capacity = make_capacity(costs, SharedState(), load)
    capacity._update(OPENED, used=0.1, lag=0.0)
    assert load.demand(OPENED).rate == pytest.approx(50)


async def test_an_update_that_fails_is_not_the_last_one(
    costs: CostModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("portrait.admission.capacity.PERIOD", 0.5)
    shared = SharedState()
    capacity = make_capacity(costs, shared, unknown := StreamLoad(Demand("telepathy", "mask", "big"), OPENED))
    watch = asyncio.create_task(capacity.watch())
    await logged(caplog, "quality and capacity could not be updated")
    capacity.remove(unknown)
    capacity.add(StreamLoad(Demand("grpc", "mask", "big"), OPENED))
    async with timeout(60):
        while not shared.rows[0].committed:
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
    assert first.parts.keys() == names | {"decode jpeg", "encode jpeg", "encode png", "decode vp8", "encode vp8"}
    assert all(len(figures) == len(SIZES) and min(figures) > 0 for figures in first.parts.values())
    (kept,) = (tmp_path / "portrait").iterdir()
    monkeypatch.setattr("portrait.server.calibration.measure", lambda _: pytest.fail("measured again"))
    assert load_costs(models).parts == first.parts
    monkeypatch.setattr("portrait.server.calibration.measure", lambda _: first.parts.items())
    for damaged in ("", "[]", "null", json.dumps({"segment portrait": [1]})):
        kept.write_text(damaged)
        assert load_costs(models).parts == first.parts
    kept.write_text(json.dumps({name: figures for name, figures in first.parts.items() if name != "encode vp8"}))
    assert load_costs(models).parts == first.parts


@pytest.mark.parametrize("size", [(208, 208), (144, 256)])
def test_composing_is_priced_with_masks_of_the_models_own_size(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()

    class Compositor:
        def __init__(self, options: Options) -> None:
            pass

        def compose(self, frame: Frame, mask: Mask) -> Frame:
            seen.add((mask.width, mask.height))
            return frame

    monkeypatch.setattr("portrait.server.calibration.open_compositor", Compositor)
    monkeypatch.setattr("portrait.server.calibration.PAUSE", 0.0)
    model = FakeModel(lambda _: Mask.empty(*size))
    model.width, model.height = size  # type: ignore[misc]
    parts = dict(measure(only(model)))
    assert seen == {size}
    assert min(parts["compose blur"]) > 0
