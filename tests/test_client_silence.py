"""Streams fail over from servers that are silent: before they accept, after that, and after the last frame."""

import asyncio
import time
from asyncio import timeout
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import numpy as np
import pytest

from portrait.client import Client, ClientError
from portrait.v1 import segmentation_pb2 as pb
from tests.silence import INFO, SILENT, result, serving, silent, silent_when_accepted

FRAME = np.zeros((8, 8, 3), np.uint8)


async def good(requests: AsyncIterator[Any], context: Any) -> None:
    await context.write(pb.SegmentStreamResponse(info=INFO))
    async for request in requests:
        if request.HasField("frame"):
            await context.write(result(request))


async def good_without_end(requests: AsyncIterator[Any], context: Any) -> None:
    await good(requests, context)
    await asyncio.Event().wait()


@pytest.mark.parametrize("every_frame", [True, False])
@pytest.mark.parametrize("kind", SILENT)
async def test_a_stream_goes_on_at_the_next_target_when_a_server_is_silent(kind: str, every_frame: bool) -> None:
    frames = 0

    async def source() -> AsyncIterator[Any]:
        nonlocal frames
        while not answered_by_the_good_one.is_set():
            frames += 1
            yield FRAME
            await asyncio.sleep(0.01)

    answered_by_the_good_one = asyncio.Event()

    async def good_that_tells(requests: AsyncIterator[Any], context: Any) -> None:
        await context.write(pb.SegmentStreamResponse(info=INFO))
        async for request in requests:
            if request.HasField("frame"):
                await context.write(result(request))
                answered_by_the_good_one.set()

    # The closing of client and servers is within the time as well: one that stands still says where.
    async with timeout(120), AsyncExitStack() as stack:
        targets = [await stack.enter_async_context(one) for one in (SILENT[kind](), serving(good_that_tells))]
        client = await stack.enter_async_context(Client(*targets))
        stream = client.stream(source(), every_frame=every_frame, reply_seconds=1.5, reconnect_seconds=60)
        replies = [reply.id async for reply in stream]
    assert replies == sorted(replies)
    if every_frame:
        assert replies == list(range(frames))


async def test_a_stream_ends_when_all_is_answered_and_the_server_does_not_end_it() -> None:
    async with serving(good_without_end) as target, Client(target) as client, timeout(60):
        replies = [reply.id async for reply in client.stream([FRAME] * 3, every_frame=True, reply_seconds=5.0)]
    assert replies == [0, 1, 2]


async def test_servers_that_are_all_silent_are_given_up_in_time() -> None:
    async with serving(silent) as one, serving(silent_when_accepted) as other, Client(one, other) as client:
        async with timeout(60):
            with pytest.raises(ClientError) as lost:
                await anext(client.stream([FRAME] * 100, reply_seconds=0.2, reconnect_seconds=1.0))
    assert lost.value.code == "DEADLINE_EXCEEDED"


async def test_a_stream_that_is_opened_alone_need_not_be_waited_for_either() -> None:
    async with serving(silent) as target, Client(target) as client, timeout(60):
        with pytest.raises(ClientError, match=r"has not accepted the stream within 0\.2 s"):
            async with client.open_stream(reply_seconds=0.2):
                pass


async def test_a_source_that_pauses_does_not_use_up_the_time_for_reconnecting() -> None:
    """A stream ends for want of frames; after the pause one attempt fails, and the next one is good."""
    attempts = 0

    async def answer(requests: AsyncIterator[Any], context: Any) -> None:
        nonlocal attempts
        attempts += 1
        if attempts in (3, 4):  # the client tries twice what a server has not refused itself
            await context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        await context.write(pb.SegmentStreamResponse(info=INFO))
        async for request in requests:
            if request.HasField("frame"):
                await context.write(result(request))
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no frame for too long")

    async def source() -> AsyncIterator[Any]:
        yield FRAME
        yield FRAME
        paused = time.monotonic()
        while time.monotonic() - paused < 6.0:
            await asyncio.sleep(0.1)
        yield FRAME

    async with serving(answer) as target, Client(target) as client, timeout(60):
        stream = client.stream(source(), max_in_flight=1, reconnect_seconds=5.0, every_frame=True)
        replies = [reply.id async for reply in stream]
    assert replies == [0, 1, 2]
    assert attempts == 5
