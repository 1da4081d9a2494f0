"""Sessions: limits, changes, ends, and leaving nothing behind."""

import asyncio
import gc
import os
import threading
import time
import weakref
from asyncio import timeout
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
import pytest

from portrait.admission.quality import Delivery
from portrait.core.compositors import Options
from portrait.core.pipeline import Result
from portrait.core.segmenters import Segmenter
from portrait.errors import BadOption, BadPicture, Draining, NoSuchSession, SegmentationHangs, TooManySessions
from portrait.image.frame import Frame, Mask
from portrait.metrics import Metrics, Stage
from portrait.sessions.registry import Sessions
from portrait.sessions.session import Session
from portrait.sessions.watched_thread import LOWER_PRIORITY
from tests.fakes import FakeModel, Gate, failing, full_mask, only
from tests.frames import GREEN, FrameCodec, make_frame


def sessions(model: FakeModel, limit: int = 2) -> Sessions:
    return Sessions(only(model), limit, Metrics())


async def test_a_session_opens_and_closes_one_segmenter_of_its_own() -> None:
    model = FakeModel(full_mask)
    held = sessions(model)
    async with held.open("grpc", FrameCodec(), GREEN) as one, held.open("grpc", FrameCodec(), GREEN) as other:
        assert model.open_count == 2
        assert one.id != other.id
        processed = await one.process(make_frame(), 0.0)
        assert processed.failure is None
        assert one.counters.done == 1
        assert other.counters.done == 0
    assert model.open_count == 0
    assert len(held) == 0


async def test_stills_share_opened_segmenters_and_none_is_left_at_the_end() -> None:
    model = FakeModel(full_mask)
    async with sessions(model) as held:
        for _ in range(3):
            async with held.open("http", FrameCodec(), GREEN, delivery=Delivery.STILL) as session:
                assert (await session.process(make_frame(), 0.0)).failure is None
            assert model.open_count == 1
        held.models = only(reloaded := FakeModel(full_mask))
        async with held.open("http", FrameCodec(), GREEN, delivery=Delivery.STILL):
            assert (model.open_count, reloaded.open_count) == (0, 1)
    assert (model.open_count, reloaded.open_count) == (0, 0)


async def test_one_session_more_than_the_limit_is_refused_before_anything_is_made() -> None:
    model = FakeModel(full_mask)
    held = sessions(model, limit=1)
    async with held.open("grpc", FrameCodec(), GREEN):
        with pytest.raises(TooManySessions, match="1 of 1 sessions are open"):
            async with held.open("grpc", FrameCodec(), GREEN):
                pass
        assert model.open_count == 1
    async with held.open("grpc", FrameCodec(), GREEN):
        assert len(held) == 1


async def test_a_mode_the_transport_cannot_carry_is_refused() -> None:
    held = sessions(FakeModel(full_mask))
    with pytest.raises(BadOption, match="webrtc cannot carry 'cutout'; expected one of"):
        async with held.open("webrtc", FrameCodec(), Options("cutout")):
            pass
    assert len(held) == 0


async def test_options_change_from_the_next_frame_on_and_bad_ones_change_nothing() -> None:
    held = sessions(FakeModel(lambda _: Mask.empty(32, 32)))
    async with held.open("grpc", FrameCodec(), GREEN) as session:
        green = (await session.process(make_frame(), 0.0)).wire
        session.change(Options("color", "#ff0000"))
        red = (await session.process(make_frame(), 0.0)).wire
        with pytest.raises(BadOption):
            session.change(Options("nope"))
        still_red = (await session.process(make_frame(), 0.0)).wire
    assert green.v.max() < 60
    assert red.v.min() > 220
    assert np.array_equal(red.v, still_red.v)


async def test_a_frame_is_decoded_for_the_options_it_is_composed_with() -> None:
    """Also when they change on the event loop while its work begins: a mask's frame may be smaller than a picture's."""
    seen: list[Options] = []

    class Codec(FrameCodec):
        def decode(self, picture: Frame, arrived: float, options: Options) -> Frame:
            seen.append(options)
            return picture

        def encode(self, result: Result, picture: Frame) -> Frame:
            seen.append(result.options)
            return picture

    class ChangedMeanwhile(Metrics):
        def stage(self, name: str) -> Stage:
            if name == "decode":
                session.change(Options("mask"))
            return super().stage(name)

    held = Sessions(only(FakeModel(full_mask)), 1, ChangedMeanwhile())
    async with held.open("grpc", Codec(), GREEN) as session:
        await session.process(make_frame(), 0.0)
        assert session.options.mode == "mask"
    assert seen == [GREEN, GREEN]


async def test_reset_reaches_the_segmenter_before_the_next_frame() -> None:
    model = FakeModel(full_mask)
    async with sessions(model).open("grpc", FrameCodec(), GREEN) as session:
        await session.process(make_frame(), 0.0)
        session.reset()
        assert model.resets == 0
        await session.process(make_frame(), 0.0)
        assert model.resets == 1


async def test_a_cancelled_frame_leaves_nothing_behind() -> None:
    gate = Gate()
    model = FakeModel(gate)
    held = sessions(model)

    async def stream() -> None:
        async with held.open("grpc", FrameCodec(), GREEN) as session:
            await session.process(make_frame(), 0.0)

    task = asyncio.create_task(stream())
    await asyncio.to_thread(gate.entered.acquire)
    task.cancel()
    gate.let_through.release()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await held.drain(60) == 0
    assert model.open_count == 0


async def test_a_session_cancelled_while_it_opens_gives_its_segmenter_back() -> None:
    entered, let_through = threading.Event(), threading.Event()

    class Slow(FakeModel):
        def open(self) -> Segmenter:
            entered.set()
            assert let_through.wait(60)
            return super().open()

    model = Slow(full_mask)
    held = sessions(model)

    async def stream() -> None:
        async with held.open("grpc", FrameCodec(), GREEN):
            pass

    task = asyncio.create_task(stream())
    await asyncio.to_thread(entered.wait)
    task.cancel()
    let_through.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await held.drain(60) == 0
    assert model.open_count == 0


async def test_drain_waits_for_open_sessions_and_refuses_new_ones() -> None:
    held = sessions(FakeModel(full_mask))
    async with held.open("grpc", FrameCodec(), GREEN):
        draining = asyncio.create_task(held.drain(60))
        await asyncio.sleep(0)
        with pytest.raises(Draining):
            async with held.open("grpc", FrameCodec(), GREEN):
                pass
        assert not draining.done()
    assert await draining == 0


async def test_drain_ends_what_is_open_at_its_deadline() -> None:
    held = sessions(FakeModel(full_mask))
    async with held.open("grpc", FrameCodec(), GREEN) as session:
        assert await held.drain(0.0) == 1
        assert await session.wait_ended() == "the service stops"


async def test_sessions_are_found_by_id_while_they_last() -> None:
    held = sessions(FakeModel(full_mask))
    async with held.open("grpc", FrameCodec(), GREEN) as session:
        found: Session[Frame, Frame] = held[session.id]
        assert found is session
        assert held.describe()[0]["mode"] == "color"
    with pytest.raises(NoSuchSession):
        held[session.id]


async def test_a_network_that_hangs_ends_its_session_and_frees_its_place() -> None:
    gate = Gate()
    model = FakeModel(gate)
    held = Sessions(only(model), 1, Metrics(), hang_seconds=1.0)
    async with held.open("grpc", FrameCodec(), GREEN) as session:
        with pytest.raises(SegmentationHangs, match=r"nothing for 1 s"):
            await session.process(make_frame(), 0.0)
        assert await session.wait_ended() == "the model gave nothing for 1 s"
        with pytest.raises(SegmentationHangs, match="abandoned"):
            await session.process(make_frame(), 0.0)
    assert len(held) == 0
    assert session.counters.done == 0
    async with held.open("grpc", FrameCodec(), GREEN):  # the abandoned thread is not waited for
        assert model.open_count == 2
    # Should it ever come back, it gives its interpreter back as well.
    gate.let_through.release()
    async with timeout(60):
        while model.open_count:
            await asyncio.sleep(0.01)


async def test_a_network_that_hangs_while_it_is_opened_frees_its_place() -> None:
    let_through = threading.Event()

    class Slow(FakeModel):
        def open(self) -> Segmenter:
            let_through.wait(60)
            return super().open()

    held = Sessions(only(Slow(full_mask)), 1, Metrics(), hang_seconds=1.0)
    with pytest.raises(SegmentationHangs):
        async with held.open("grpc", FrameCodec(), GREEN):
            pass
    assert len(held) == 0
    let_through.set()


async def test_a_frame_that_was_given_up_while_it_hung_ends_in_a_free_place_too() -> None:
    """The transport has gone; the end of the session is what finds the thread hanging."""
    gate = Gate()
    held = Sessions(only(FakeModel(gate)), 1, Metrics(), hang_seconds=1.0)
    async with held.open("grpc", FrameCodec(), GREEN) as session:
        work = asyncio.create_task(session.process(make_frame(), 0.0))
        await asyncio.to_thread(gate.entered.acquire)
        work.cancel()
    assert len(held) == 0
    gate.let_through.release()


@pytest.mark.parametrize(("delivery", "resets"), [(Delivery.LIVE, 1), (Delivery.EXACT, 0)])
async def test_a_sender_that_is_slowed_down_keeps_its_prior(delivery: Delivery, resets: int) -> None:
    model = FakeModel(full_mask)
    async with sessions(model).open("grpc", FrameCodec(), GREEN, delivery=delivery) as session:
        for arrived in (0.0, 5.0):
            await session.process(make_frame(arrived), arrived)
    assert model.resets == resets


HANG_SECONDS, SLOW_SECONDS = 1.0, 1.6


class SlowCodec(FrameCodec):
    """Takes longer than the watchdog's timeout to decode and to encode, as large stills on a busy box do."""

    def decode(self, picture: Frame, arrived: float, options: Options) -> Frame:
        time.sleep(SLOW_SECONDS)
        return picture

    def encode(self, result: Result, picture: Frame) -> Frame:
        time.sleep(SLOW_SECONDS)
        return super().encode(result, picture)


async def test_slow_decoding_and_encoding_are_no_hang() -> None:
    held = Sessions(only(FakeModel(full_mask)), 1, Metrics(), hang_seconds=HANG_SECONDS)
    async with held.open("http", SlowCodec(), GREEN, delivery=Delivery.STILL) as session:
        assert (await session.process(make_frame(), 0.0)).failure is None


async def test_the_end_of_a_session_waits_for_slow_decoding() -> None:
    """Its thread is in the codec when the transport goes; that is no hang either."""
    decoding = threading.Event()

    class Codec(SlowCodec):
        def decode(self, picture: Frame, arrived: float, options: Options) -> Frame:
            decoding.set()
            return super().decode(picture, arrived, options)

    metrics, model = Metrics(), FakeModel(full_mask)
    held = Sessions(only(model), 1, metrics, hang_seconds=HANG_SECONDS)
    async with held.open("http", Codec(), GREEN) as session:
        work = asyncio.create_task(session.process(make_frame(), 0.0))
        await asyncio.to_thread(decoding.wait)
        work.cancel()
    assert model.open_count == 0
    assert 'portrait_sessions_hung_total{transport="http"} 0.0' in metrics.expose("")[0].decode()


class RefusingCodec(FrameCodec):
    """Decodes for a while, and then finds the picture too large."""

    def decode(self, picture: Frame, arrived: float, options: Options) -> Frame:
        raise BadPicture("frame", "3840x2160 is 8294400 pixels; expected at most 2073600", (3840, 2160))


@pytest.mark.parametrize("transport", ["webrtc", "grpc", "http"])
async def test_every_refused_picture_is_counted_whatever_its_transport(transport: str) -> None:
    metrics = Metrics()
    held = Sessions(only(FakeModel(full_mask)), 1, metrics)
    async with held.open(transport, RefusingCodec(), GREEN) as session:
        for _ in range(3):
            with pytest.raises(BadPicture):
                await session.process(make_frame(), 0.0)
        await session.skip(make_frame(), 0.0, "no_viewer")
        described = session.describe()
    assert (described["frames_refused"], described["frames_dropped"]) == (4, 0)
    assert (described["width"], described["height"]) == (3840, 2160)
    counted = f'portrait_frames_total{{reason="bad_picture",result="refused",transport="{transport}"}} 4.0'
    assert counted in metrics.expose("")[0].decode()


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Without the garbage collector, only what no cycle of references holds is freed."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("ending", ["done", "refused", "failed", "cancelled", "hung"])
async def test_an_ended_session_is_freed_at_once(no_collector: None, ending: str) -> None:
    """With its pipeline, its segmenter, its codec and its pictures; the collector may be minutes away."""
    gate = Gate()
    segments: dict[str, Callable[[Frame], Mask]] = {"failed": failing, "cancelled": gate, "hung": gate}
    model = FakeModel(segments.get(ending, full_mask))
    held = Sessions(only(model), 1, Metrics(), hang_seconds=1.0 if ending == "hung" else 60.0)
    seen: list[weakref.ref[object]] = []

    async def live() -> None:
        codec = RefusingCodec() if ending == "refused" else FrameCodec()
        async with held.open("grpc", codec, GREEN) as session:
            frame = make_frame()
            assert session._pipeline is not None
            seen.extend(map(weakref.ref, (session, codec, frame.y, session._pipeline, session._pipeline._segmenter)))
            with suppress(BadPicture, SegmentationHangs):
                await session.process(frame, 0.0)

    task = asyncio.create_task(live())
    if ending == "cancelled":
        await asyncio.to_thread(gate.entered.acquire)
        task.cancel()
        gate.let_through.release()
    await asyncio.wait([task])
    del task
    gate.let_through.release()
    async with timeout(60):  # the session's thread may still be at its last instruction
        while any(reference() is not None for reference in seen):
            await asyncio.sleep(0.01)
    assert len(seen) == 5


class PriorityCodec(FrameCodec):
    """Tells how nice the thread is that encodes."""

    def encode(self, result: Result, picture: Frame) -> int:  # type: ignore[override]
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


async def test_stills_run_at_a_lower_priority_than_streams() -> None:
    nice = {}
    async with sessions(FakeModel(full_mask)) as held:
        for delivery in Delivery:
            async with held.open("http", PriorityCodec(), GREEN, delivery=delivery) as session:
                nice[delivery] = (await session.process(make_frame(), time.monotonic())).wire
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert nice == {Delivery.LIVE: own, Delivery.EXACT: own, Delivery.STILL: min(19, own + LOWER_PRIORITY)}
