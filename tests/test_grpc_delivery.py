"""gRPC streams beside a slow network or a failing one: the newest frame or every frame, never seconds of them."""

import asyncio
import itertools
from asyncio import timeout
from typing import Any

import cv2
import numpy as np
import pytest

from portrait.sessions.newest_slot import NewestSlot
from portrait.v1 import segmentation_pb2 as pb
from tests.calls import client, fake_service, i420, jpeg, rgb24, shown
from tests.fakes import FakeModel, Gate, failing
from tests.people import Clip, room

__all__ = ["client", "shown"]  # fixtures


@pytest.fixture
def slots(monkeypatch: pytest.MonkeyPatch) -> list[NewestSlot[Any]]:
    """The slot of each stream that is opened from now on."""
    opened: list[NewestSlot[Any]] = []

    class Noted(NewestSlot[Any]):
        def __init__(self) -> None:
            super().__init__()
            opened.append(self)

    monkeypatch.setattr("portrait.transports.grpc.stream.NewestSlot", Noted)
    return opened


async def until_lost(slot: NewestSlot[Any], count: int) -> None:
    """Wait until so many frames have made place for newer ones."""
    async with timeout(60):
        while slot.dropped < count:
            await asyncio.sleep(0.01)


async def test_a_slow_network_keeps_only_the_newest_frame_and_says_what_it_dropped(
    shown: Clip, slots: list[NewestSlot[Any]]
) -> None:
    gate = Gate()
    async with fake_service(FakeModel(gate)) as (client, sessions), client.open_stream() as stream:
        await stream.send(i420(shown.frames[0]), 0)
        await asyncio.to_thread(gate.entered.acquire)
        for i in range(1, 10):
            await stream.send(i420(shown.frames[i]), i)
        await stream.finish()
        await until_lost(slots[0], 8)
        session = sessions[stream.info.session_id]
        gate.let_through.release(2)
        replies = [reply async for reply in stream]
    assert [(reply.id, reply.dropped) for reply in replies] == [(0, 0), (9, 8)]
    assert session.counters.dropped == 8


async def test_drops_come_with_their_reason(shown: Clip, slots: list[NewestSlot[Any]]) -> None:
    gate = Gate()
    async with fake_service(FakeModel(gate)) as (client, _), client.open_stream() as stream:
        await stream.send(i420(shown.frames[0]), 0)
        await asyncio.to_thread(gate.entered.acquire)
        for i in range(1, 4):
            await stream.send(i420(shown.frames[i]), i)
        await stream.finish()
        await until_lost(slots[0], 2)
        gate.let_through.release(2)
        results = [message.result async for message in messages(stream._call)]
    told = [(result.dropped, result.drop_reason) for result in results]
    assert told == [(0, pb.DROP_REASON_UNSPECIFIED), (2, pb.DROP_REASON_NEWER_FRAME)]


async def messages(call: Any) -> Any:
    while (message := await call.read()) is not None:
        yield message


async def test_every_frame_slows_the_sender_down_and_loses_nothing(shown: Clip) -> None:
    gate = Gate()
    big = rgb24(np.asarray(cv2.resize(shown.frames[0], (640, 480)), np.uint8))
    sent = itertools.count()
    async with fake_service(FakeModel(gate)) as (client, _), client.open_stream(every_frame=True) as stream:

        async def send_all() -> None:
            for i in range(40):
                await stream.send(big, i)
                next(sent)
            await stream.finish()

        sender = asyncio.create_task(send_all())
        await asyncio.to_thread(gate.entered.acquire)
        done, _ = await asyncio.wait({sender}, timeout=1.0)
        assert not done, "40 frames of 0.9 MB went ahead of a network that has done none"
        gate.let_through.release(40)
        replies = [reply async for reply in stream]
        await sender
    assert [reply.id for reply in replies] == list(range(40))
    assert all(reply.dropped == 0 for reply in replies)


async def test_a_sender_cannot_pile_up_seconds(shown: Clip) -> None:
    """What the wire holds beside a busy network stays below a second of 720p JPEG video."""
    gate = Gate()
    big = jpeg(room(1280, 720))
    assert len(big.message.data) > 60_000
    sent = 0
    async with fake_service(FakeModel(gate)) as (client, _), client.open_stream(every_frame=True) as stream:

        async def send_all() -> None:
            nonlocal sent
            for i in range(120):
                await stream.send(big, i)
                sent += 1

        sender = asyncio.create_task(send_all())
        await asyncio.to_thread(gate.entered.acquire)
        before = -1
        while sent != before:  # until the sender stands still
            before = sent
            await asyncio.sleep(0.3)
        sender.cancel()
        gate.let_through.release(200)
    assert sent <= 15


async def test_a_sender_that_is_slowed_down_is_not_idle() -> None:
    gate = Gate()
    async with (
        fake_service(FakeModel(gate), idle_seconds=1.0) as (client, _),
        client.open_stream(every_frame=True) as stream,
    ):
        for i in range(4):
            await stream.send(i420(room(64, 48)), i)
        await asyncio.sleep(2.0)  # twice the limit, with frames waiting all along
        await stream.finish()
        gate.let_through.release(4)
        assert [reply.id async for reply in stream] == [0, 1, 2, 3]


async def test_a_failing_network_is_told_frame_by_frame_and_the_stream_lives_on(shown: Clip) -> None:
    async with (
        fake_service(FakeModel(failing)) as (client, _),
        client.open_stream(mode="color", every_frame=True) as stream,
    ):
        for i in range(2):
            await stream.send(i420(shown.frames[0]), i)
            reply = await stream.receive()
            assert reply is not None
            assert reply.error is not None
            assert (reply.error.code, reply.error.reason) == ("INTERNAL", "SEGMENTATION_FAILED")
            luma = reply.array[: 640 * 360]
            assert len(np.unique(luma)) == 1, "something of the camera came out"
