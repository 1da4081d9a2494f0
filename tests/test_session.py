"""Sessions: limits, changes, ends, and leaving nothing behind."""

import asyncio
import threading
from asyncio import timeout

import numpy as np
import pytest

from portrait.admission.quality import Delivery
from portrait.core.compositors import Options
from portrait.core.pipeline import Result
from portrait.core.segmenters import Segmenter
from portrait.errors import BadOption, Draining, NoSuchSession, SegmentationHangs, TooManySessions
from portrait.image.frame import Frame
from portrait.image.mask import Mask
from portrait.metrics import Metrics, Stage
from portrait.sessions.registry import Sessions
from portrait.sessions.session import Session
from tests.fakes import FakeModel, Gate, full_mask, only
from tests.frames import GREEN, FrameCodec, make_frame


def sessions(model: FakeModel, limit: int = 2) -> Sessions:
    return Sessions(only(model), limit, Metrics())


async def test_a_session_opens_and_closes_one_segmenter_of_its_own() -> None:
    model = FakeModel(full_mask)
    held = sessions(model)
    async with held.open("grpc", FrameCodec(), GREEN) as one, held.open("grpc", FrameCodec(), GREEN) as other:
        assert model.open_count == 2
        assert one.id != other.id
        turn = await one.turn(make_frame(), 0.0)
        assert turn.failure is None
        assert one.numbers.done == 1
        assert other.numbers.done == 0
    assert model.open_count == 0
    assert len(held) == 0


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
        green = (await session.turn(make_frame(), 0.0)).wire
        session.change(Options("color", "#ff0000"))
        red = (await session.turn(make_frame(), 0.0)).wire
        with pytest.raises(BadOption):
            session.change(Options("nope"))
        still_red = (await session.turn(make_frame(), 0.0)).wire
    assert green.v.max() < 60
    assert red.v.min() > 220
    assert np.array_equal(red.v, still_red.v)


async def test_a_frame_is_decoded_for_the_options_it_is_composed_with() -> None:
    """Also when they change on the event loop while its turn begins: a mask's frame may be smaller than a picture's."""
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
        await session.turn(make_frame(), 0.0)
        assert session.options.mode == "mask"
    assert seen == [GREEN, GREEN]


async def test_reset_reaches_the_segmenter_before_the_next_frame() -> None:
    model = FakeModel(full_mask)
    async with sessions(model).open("grpc", FrameCodec(), GREEN) as session:
        await session.turn(make_frame(), 0.0)
        session.reset()
        assert model.resets == 0
        await session.turn(make_frame(), 0.0)
        assert model.resets == 1


async def test_a_cancelled_turn_leaves_nothing_behind() -> None:
    gate = Gate()
    model = FakeModel(gate)
    held = sessions(model)

    async def stream() -> None:
        async with held.open("grpc", FrameCodec(), GREEN) as session:
            await session.turn(make_frame(), 0.0)

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
    held = Sessions(only(model), 1, Metrics(), hang_seconds=0.5)
    async with held.open("grpc", FrameCodec(), GREEN) as session:
        with pytest.raises(SegmentationHangs, match=r"nothing for 0\.5 s"):
            await session.turn(make_frame(), 0.0)
        assert await session.wait_ended() == "the network gave nothing for 0.5 s"
        with pytest.raises(SegmentationHangs, match="given up"):
            await session.turn(make_frame(), 0.0)
    assert len(held) == 0
    assert session.numbers.done == 0
    async with held.open("grpc", FrameCodec(), GREEN):  # nobody waits for the thread that was left behind
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

    held = Sessions(only(Slow(full_mask)), 1, Metrics(), hang_seconds=0.2)
    with pytest.raises(SegmentationHangs):
        async with held.open("grpc", FrameCodec(), GREEN):
            pass
    assert len(held) == 0
    let_through.set()


async def test_a_frame_that_was_given_up_while_it_hung_ends_in_a_free_place_too() -> None:
    """The transport has gone; the end of the session is what finds the thread hanging."""
    gate = Gate()
    held = Sessions(only(FakeModel(gate)), 1, Metrics(), hang_seconds=0.2)
    async with held.open("grpc", FrameCodec(), GREEN) as session:
        turn = asyncio.create_task(session.turn(make_frame(), 0.0))
        await asyncio.to_thread(gate.entered.acquire)
        turn.cancel()
    assert len(held) == 0
    gate.let_through.release()


@pytest.mark.parametrize(("delivery", "resets"), [(Delivery.LIVE, 1), (Delivery.EXACT, 0)])
async def test_a_sender_that_is_slowed_down_keeps_its_prior(delivery: Delivery, resets: int) -> None:
    model = FakeModel(full_mask)
    async with sessions(model).open("grpc", FrameCodec(), GREEN, delivery=delivery) as session:
        for arrived in (0.0, 5.0):
            await session.turn(make_frame(arrived), arrived)
    assert model.resets == resets
