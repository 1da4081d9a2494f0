"""The bytes of gRPC messages that have come and are not done with are bounded, over all calls of a worker."""

import asyncio
from asyncio import timeout
from contextlib import AsyncExitStack

import numpy as np
import pytest

from portrait.client import Client, ClientError, Picture
from portrait.transports.grpc.config import LARGE_MESSAGES
from portrait.transports.grpc.message_budget import KEPT_OF_A_STREAM
from portrait.v1 import segmentation_pb2 as pb
from portrait_client.stream import Stream
from tests.calls import fake_service
from tests.fakes import FakeModel, Gate, full_mask

SIDE = 1000
MESSAGE_BYTES = 4_000_000
"""The largest legal message of `fake_service`."""

FIT = LARGE_MESSAGES * MESSAGE_BYTES // (3 * SIDE * SIDE)
"""Pictures below that fit the bound."""


def picture() -> Picture:
    """One that has room in the pixel budget of `fake_service` alone: the next ones wait."""
    return Picture.rgb24(np.zeros((SIDE, SIDE, 3), np.uint8))


async def test_messages_without_room_are_refused_with_a_time_to_try_again() -> None:
    gate = Gate()
    async with fake_service(FakeModel(gate)) as (client, sessions), timeout(120):
        for _ in range(2):  # the second time all bytes have been given back
            calls = [asyncio.create_task(client.segment(picture())) for _ in range(FIT + 2)]
            refused: list[ClientError] = []
            while len(refused) < 2:
                done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
                for call in done:
                    error = call.exception()
                    assert isinstance(error, ClientError)
                    refused.append(error)
                calls = [call for call in calls if call not in done]
            assert [(error.code, error.reason) for error in refused] == [("RESOURCE_EXHAUSTED", "TOO_MANY_BYTES")] * 2
            assert all(error.retry_after and error.retry_after > 0 for error in refused)
            for _ in calls:
                gate.let_through.release()
            assert len(await asyncio.gather(*calls)) == FIT
    exposed = sessions.metrics.expose("")[0].decode()
    assert 'portrait_admission_refused_total{reason="too_many_bytes",transport="grpc"} 4.0' in exposed


@pytest.mark.parametrize("every_frame", [True, False])
async def test_a_stream_may_send_any_number_of_large_messages_one_after_the_other(every_frame: bool) -> None:
    count = 3 * FIT
    async with fake_service(FakeModel(full_mask)) as (client, _), timeout(120):
        replies = [reply async for reply in client.stream([picture()] * count, every_frame=every_frame)]
    assert all(reply.error is None for reply in replies)
    if every_frame:
        assert len(replies) == count


async def test_messages_of_calls_that_are_cut_take_no_room() -> None:
    gate = Gate()
    async with fake_service(FakeModel(gate)) as (client, _), timeout(120):
        for _ in range(3):
            calls = [asyncio.create_task(client.segment(picture())) for _ in range(FIT)]
            await asyncio.to_thread(gate.entered.acquire)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            gate.let_through.release()
        for _ in range(3 * FIT):
            gate.let_through.release()
        assert await client.segment(picture())


async def test_clients_that_take_no_result_take_no_room_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portrait.transports.grpc.status.STATUS_SECONDS", 1.0)

    async def send(stream: Stream) -> None:
        while True:
            await stream.send(picture(), 0)

    async def refused(client: Client) -> ClientError | None:
        try:
            await client.segment(picture())
        except ClientError as error:
            return error
        return None

    async with (
        fake_service(FakeModel(full_mask), idle_seconds=1.0) as (client, sessions),
        timeout(120),
        AsyncExitStack() as stack,
    ):
        for _ in range(FIT // KEPT_OF_A_STREAM + 1):
            opening = client.open_stream(every_frame=True, mode="color", format=pb.PICTURE_FORMAT_I420)
            sending = asyncio.create_task(send(await stack.enter_async_context(opening)))
            stack.callback(sending.cancel)
            while sessions:
                await asyncio.sleep(0.1)
        while (refusal := await refused(client)) is not None:
            assert refusal.reason == "TOO_MANY_BYTES"
            await asyncio.sleep(0.1)


async def test_sizes_that_do_not_fit_are_no_part_of_it() -> None:
    """A message above the largest legal size is told so, whatever is in memory."""
    async with fake_service(FakeModel(full_mask)) as (client, _), timeout(60):
        with pytest.raises(ClientError) as refused:
            await client.segment(Picture.rgb24(np.zeros((2 * SIDE, SIDE, 3), np.uint8)))
    assert refused.value.reason == "MESSAGE_TOO_LARGE"
