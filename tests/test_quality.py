"""Less than full quality: when it goes down and up, what it does to masks, and how many streams fit."""

import asyncio
import re
from asyncio import timeout
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portrait.admission.capacity import Capacity
from portrait.admission.quality import Delivery, Quality
from portrait.admission.quality_controller import Pressure, QualityController
from portrait.client import Client, ClientError
from portrait.core.compositors import Options, open_compositor
from portrait.core.pipeline import Pipeline, Result
from portrait.image.frame import GREY, Frame, Mask, Timestamp
from portrait.metrics import Metrics
from portrait.server.app import RunningService as Service
from portrait.server.app import run_service
from portrait.sessions.registry import Sessions
from portrait.settings import Settings
from portrait.workers.shared_state import SharedState
from tests.fakes import FakeModel, full_mask, only
from tests.frames import FrameCodec
from tests.people import Clip, clip
from tests.rtc import Camera, viewer

FULL, STILL, ALTERNATE, SMALLER, SLOWER = Quality

CALM = Pressure(cpu=0.5, cpu_better=0.6, lag=0.001, age=0.01)
BUSY = replace(CALM, cpu=0.95, cpu_better=1.2)
BETWEEN = replace(CALM, cpu_better=0.8)


# The controller: seconds of each pressure, and the quality afterwards.
@pytest.mark.parametrize(
    ("course", "quality"),
    [
        ([(CALM, 60)], FULL),
        ([(BUSY, 0.75)], FULL),
        ([(BUSY, 1.25)], STILL),
        ([(replace(CALM, lag=0.06), 1.25)], STILL),
        ([(replace(CALM, age=0.07), 1.25)], STILL),
        ([(BUSY, 0.75), (BETWEEN, 0.25), (BUSY, 0.75)], FULL),
        ([(BUSY, 2.5)], ALTERNATE),
        ([(BUSY, 60)], SLOWER),
        ([(BUSY, 60), (BETWEEN, 600)], SLOWER),
        ([(BUSY, 60), (CALM, 4.75)], SLOWER),
        ([(BUSY, 60), (CALM, 5.5)], SMALLER),
        ([(BUSY, 60), (replace(CALM, lag=0.03), 60)], SLOWER),
        ([(BUSY, 60), (CALM, 60)], FULL),
        ([(BUSY, 60), (CALM, 4), (BUSY, 0.25), (CALM, 4)], SLOWER),
    ],
)
def test_quality_goes_down_soon_and_up_late(course: list[tuple[Pressure, float]], quality: Quality) -> None:
    controller, now = QualityController(SLOWER), 0.0
    for pressure, seconds in course:
        for _ in range(round(seconds / 0.25)):
            before = controller.quality
            step = controller.update(now, pressure)
            assert controller.quality == before + step
            now += 0.25
    assert controller.quality == quality


def test_finer_models_come_with_cpu_to_spare_and_go_before_quality_does() -> None:
    spare, tight = replace(CALM, cpu_finer=0.4), replace(CALM, cpu_finer=0.6)
    course = [
        (tight, 60, False, FULL), (spare, 0.25, True, FULL), (BETWEEN, 60, True, FULL),
        (BUSY, 1.25, False, FULL), (BUSY, 1.25, False, STILL), (spare, 5.5, False, FULL), (spare, 5.5, True, FULL),
    ]  # fmt: skip
    controller, now = QualityController(SLOWER, has_finer=True), 0.0
    for pressure, seconds, finer, quality in course:
        for _ in range(round(seconds / 0.25)):
            controller.update(now, pressure)
            now += 0.25
        assert (controller.finer, controller.quality) == (finer, quality)


@pytest.mark.parametrize("lowest", Quality)
def test_quality_goes_no_further_than_allowed_and_says_when_that_is_not_enough(lowest: Quality) -> None:
    controller = QualityController(lowest)
    for i in range(100):
        controller.update(float(i), BUSY)
        assert not controller.saturated or controller.quality == lowest
    assert controller.quality == lowest
    assert controller.saturated
    controller.update(100.0, BETWEEN)
    assert not controller.saturated


# What each step does to masks.


def make_frame(number: int, level: int = 90, size: int = 96) -> Frame:
    """A noisy grey picture; `level` moves a part of it."""
    noise = np.random.default_rng(number).integers(-4, 5, (size, size))
    luma = np.full((size, size), 120) + noise
    luma[:32, :32] = level
    chroma = np.full((size // 2, size // 2), GREY, np.uint8)
    return Frame(luma.astype(np.uint8), chroma, chroma, Timestamp(number, Fraction(1, 30)), number / 30)


SIDE = 192
"""Of the masks, as the embedded networks make them."""


class Watched:
    """Pipelines over a fake network that counts."""

    def __init__(self) -> None:
        self.big, self.small = FakeModel(self._mask), FakeModel(self._small_mask)
        self.worked = self.worked_small = 0
        self.pipeline = Pipeline(self.big.open(), (SIDE, SIDE), Metrics(), self.small.open)
        self._options = Options("mask")
        self._compositor = open_compositor(self._options)

    def run(self, frame: Frame, quality: Quality) -> Result:
        return self.pipeline.run(frame, self._options, self._compositor, quality)

    def _mask(self, _: Frame) -> Mask:
        self.worked += 1
        return Mask(np.full((SIDE, SIDE), self.worked, np.uint8))

    def _small_mask(self, _: Frame) -> Mask:
        self.worked_small += 1
        return Mask(np.full((SIDE, SIDE), 100 + self.worked_small, np.uint8))


def test_at_full_quality_every_frame_has_its_own_mask() -> None:
    watched = Watched()
    results = [watched.run(make_frame(i), FULL) for i in range(6)]
    assert [int(result.mask.values[0, 0]) for result in results] == [1, 2, 3, 4, 5, 6]
    assert not any(result.carried for result in results)


def test_a_still_picture_takes_its_mask_again_and_a_moving_one_does_not() -> None:
    watched = Watched()
    levels = [90] * 4 + [90 + 20 * i for i in range(1, 5)] + [170] * 3
    results = [watched.run(make_frame(i, level), STILL) for i, level in enumerate(levels)]
    assert [bool(result.carried) for result in results] == [False, *[True] * 3, *[False] * 4, *[True] * 3]
    assert {result.carried for result in results} == {"", "still"}


def test_what_creeps_is_seen_and_what_never_moves_is_looked_at_twice_a_second() -> None:
    watched = Watched()
    creeping = [watched.run(make_frame(i, 60 + i), STILL) for i in range(30)]
    assert watched.worked >= 8
    assert creeping[0].carried == ""
    resting = Watched()
    for i in range(64):
        resting.run(make_frame(i), STILL)
    assert resting.worked == 4


def test_every_second_frame_takes_the_mask_before_it() -> None:
    watched = Watched()
    results = [watched.run(make_frame(i, 40 + 20 * i), ALTERNATE) for i in range(6)]
    assert [int(result.mask.values[0, 0]) for result in results] == [1, 1, 2, 2, 3, 3]
    assert [result.carried for result in results] == ["", "alternate"] * 3


def test_a_mask_is_never_carried_over_a_gap_another_size_or_a_reset() -> None:
    watched = Watched()
    assert not watched.run(make_frame(0), ALTERNATE).carried
    assert not watched.run(make_frame(60), ALTERNATE).carried
    assert not watched.run(make_frame(61, size=64), ALTERNATE).carried
    watched.pipeline.reset()
    assert not watched.run(make_frame(62, size=64), ALTERNATE).carried


def test_the_smaller_network_goes_on_from_the_others_mask_and_back() -> None:
    watched = Watched()
    for i in range(4):
        watched.run(make_frame(i, 40 + 20 * i), FULL)
    assert watched.small.open_count == 0
    small = [watched.run(make_frame(4 + i, 40 + 20 * i), SMALLER) for i in range(4)]
    assert [int(result.mask.values[0, 0]) for result in small] == [4, 101, 101, 102]
    assert [prior.values[0, 0] for prior in watched.small.priors] == [4]
    assert watched.run(make_frame(8, 230), FULL).mask.values[0, 0] == 5
    assert [prior.values[0, 0] for prior in watched.big.priors] == [102]
    watched.pipeline.close()
    assert (watched.big.open_count, watched.small.open_count) == (0, 0)


def test_a_finer_model_continues_from_the_others_mask_at_its_own_size_and_back() -> None:
    own, finer = (FakeModel(lambda _, size=size: Mask(np.full((size, size), size, np.uint8))) for size in (96, 128))
    finer.width = finer.height = 128
    pipeline = Pipeline(own.open(), (96, 96), Metrics(), finer=finer)
    options = Options("mask")
    masks = [pipeline.run(make_frame(i), options, open_compositor(options), finer=i in (2, 3)).mask for i in range(6)]
    assert [mask.width for mask in masks] == [96, 96, 128, 128, 96, 96]
    assert [(prior.width, prior.values[0, 0]) for prior in finer.priors] == [(128, 96)]
    assert [(prior.width, prior.values[0, 0]) for prior in own.priors] == [(96, 128)]
    pipeline.close()
    assert (own.open_count, finer.open_count) == (0, 0)


# Sessions and their clients.


async def test_only_live_sessions_get_less_and_an_exact_one_is_slowed_down_instead() -> None:
    qualities = {}
    metrics, shared = Metrics(), SharedState()
    capacity = Capacity(None, shared, metrics)
    capacity._controller.quality = SLOWER
    async with Sessions(only(FakeModel(full_mask)), 4, metrics, shared, capacity) as sessions:
        for delivery in Delivery:
            async with sessions.open("grpc", FrameCodec(), Options("mask"), delivery=delivery) as session:
                qualities[delivery] = session.quality
                started = asyncio.get_running_loop().time()
                for _ in range(4):
                    await session.pace()
                paced = asyncio.get_running_loop().time() - started
                least = {Delivery.LIVE: 3 / 14.5, Delivery.EXACT: 3 / 30, Delivery.STILL: 0.0}[delivery]
                assert paced >= least - 0.01
    assert qualities == {Delivery.LIVE: SLOWER, Delivery.EXACT: FULL, Delivery.STILL: FULL}


@pytest.fixture
def counting_cpu(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a box whose share of CPU the first stream takes whole."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return settings.model_copy(update={"cpu_share": 0.001, "quality_steps": 4})


@pytest.fixture(scope="module")
def shown() -> Clip:
    return clip(320, 240, 24)


async def test_a_stream_too_many_is_told_why_and_when_to_try_again(counting_cpu: Settings, shown: Clip) -> None:
    async with run_service(counting_cpu) as box, Client(f"127.0.0.1:{box.grpc_port}") as client:
        async with client.open_stream():
            with pytest.raises(ClientError, match=r"of 0\.00 cores are taken") as refused:
                async with client.open_stream():
                    pass
            assert (refused.value.code, refused.value.reason) == ("RESOURCE_EXHAUSTED", "OUT_OF_CPU")
            assert refused.value.retry_after == 5.0
            async with viewer(f"http://127.0.0.1:{box.http_port}", Camera(shown)) as other:
                response = await other.post(await other.offer())
                assert response.status == 503
                assert response.headers["Retry-After"] == "5"
                assert (await response.json())["title"] == "OUT_OF_CPU"
                async with other.http.get(f"{other.url}/metrics") as scrape:
                    text = await scrape.text()
                for transport in ("grpc", "webrtc"):
                    counted = f'portrait_admission_refused_total{{reason="out_of_cpu",transport="{transport}"}} 1.0'
                    assert counted in text
        async with timeout(60):
            while box.sessions.describe():
                await asyncio.sleep(0.01)
        async with client.open_stream():
            pass


@pytest.fixture
def fix(service: Service, monkeypatch: pytest.MonkeyPatch) -> Callable[[Quality], None]:
    """Puts a quality in force, whatever is measured."""

    def put(quality: Quality) -> None:
        assert service.sessions._capacity is not None
        service.sessions._capacity._controller.quality = quality

    monkeypatch.setattr(QualityController, "update", lambda *_: 0)
    return put


async def test_clients_are_told_the_quality_they_get(
    service: Service, shown: Clip, fix: Callable[[Quality], None]
) -> None:
    """With every result of gRPC, and in a WebRTC session's numbers."""
    fix(ALTERNATE)
    async with Client(f"127.0.0.1:{service.grpc_port}") as client, client.open_stream(prior_every=1) as stream:
        replies = []
        for i in range(6):
            await stream.send(shown.frames[0][..., ::-1].copy(), i)
            reply = await stream.receive()
            assert reply is not None
            replies.append(reply)
        assert {reply.quality for reply in replies} == {"alternate"}
        assert [reply.carried for reply in replies[:2]] == [False, True]
        for before, reply in pairwise(replies):
            assert before.prior is not None
            assert reply.prior is not None
            assert np.array_equal(before.prior, reply.prior) == reply.carried
        async with client.open_stream(every_frame=True) as exact:
            await exact.send(shown.frames[0], 0)
            reply = await exact.receive()
            assert reply is not None
            assert (reply.quality, reply.carried) == ("full", False)
    async with viewer(f"http://127.0.0.1:{service.http_port}", Camera(shown)) as one:
        await one.connect()
        for _ in range(10):
            await one.frame()
        assert (await one.numbers())["quality"] == "alternate"
        async with one.http.get(f"{one.url}/metrics") as scrape:
            text = await scrape.text()
    counted = re.findall(r"^portrait_masks_carried_total\{.*\} (\S+)", text, re.MULTILINE)
    assert sum(map(float, counted)) >= 5


async def test_composed_video_gets_the_finer_model_and_a_mask_keeps_its_size(
    service: Service, shown: Clip, fix: Callable[[Quality], None]
) -> None:
    fix(FULL)
    service.sessions._capacity._controller.finer = True
    for query, model in (({}, "portrait-fine"), ({"result": "mask"}, "portrait"), ({"model": "portrait"}, "portrait")):
        async with viewer(f"http://127.0.0.1:{service.http_port}", Camera(shown)) as one:
            await one.connect(**query)
            for _ in range(5):
                await one.frame()
            numbers = await one.numbers()
        assert (numbers["model"], numbers["quality"], numbers["frames_failed"]) == (model, "full", 0)


async def test_the_lowest_step_halves_the_frames(service: Service, shown: Clip, fix: Callable[[Quality], None]) -> None:
    fix(SLOWER)
    async with viewer(f"http://127.0.0.1:{service.http_port}", Camera(shown)) as one:
        await one.connect()
        async with timeout(60):
            # A machine that does much else may be too slow for its camera, too: then nothing is dropped, yet.
            numbers: dict[str, Any] = await one.numbers()
            while numbers["frames_done"] < 30 or not numbers["frames_dropped"] or not slow(numbers):
                await one.frame()
                numbers = await one.numbers()


def slow(numbers: dict[str, Any]) -> bool:
    return 0 < float(numbers["frames_per_second"]) < 16
