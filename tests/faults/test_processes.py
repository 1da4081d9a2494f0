"""A box as its users run it, of which something hangs, or which is stopped while it works."""

import asyncio
import signal
import threading
import time
from asyncio import timeout
from contextlib import AsyncExitStack

import pytest

from portrait.client import Client, ClientError, Reply
from portrait.image.frame import Frame, Mask
from portrait.server.app import run_service
from portrait_client.stream import Stream
from tests.boxes import ended, serving
from tests.fakes import FakeModel, full_mask
from tests.faults.search import settings
from tests.faults.stopped import stopped, threads, wait_idle
from tests.faults.troubles import instead_of_the_embedded
from tests.people import Clip, clip, room
from tests.rtc import SIZE, Camera, viewer
from tests.two_workers import scrape

FRAME = room(96, 64)


async def answer(stream: Stream) -> Reply:
    """One frame's reply, without an error."""
    await stream.send(FRAME, 1)
    reply = await stream.receive()
    assert reply is not None
    assert reply.error is None
    return reply


async def own_thread(process: int, before: dict[int, int], stream: Stream) -> int:
    """The thread of a stream that was opened after `before`: the one that works when frames come."""
    begun = threads(process)
    while True:
        for _ in range(20):
            await answer(stream)
        worked = {
            thread: used - begun.get(thread, 0) for thread, used in threads(process).items() if thread not in before
        }
        thread = max(worked, key=worked.__getitem__)
        if worked[thread] >= 3:
            return thread


async def test_an_interpreter_that_hangs_costs_its_session_only_and_its_place_is_free() -> None:
    options = ("--workers", "1", "--max-sessions", "2", "--hang-seconds", "1")
    with serving(*options) as (process, told):
        async with Client(told["grpc"]) as client, client.open_stream() as neighbour:
            await answer(neighbour)
            before = threads(process.pid)
            async with client.open_stream(mode="color") as unlucky, AsyncExitStack() as stack:
                thread = await own_thread(process.pid, before, unlucky)
                await wait_idle(process.pid, thread)
                try:
                    has_ended = stack.enter_context(stopped(thread))
                except PermissionError as error:
                    pytest.skip(f"no thread can be stopped here: {error}")
                await unlucky.send(FRAME, 2)
                await answer(neighbour)
                with pytest.raises(ClientError, match="gave nothing for 1 s") as hung:
                    await unlucky.receive()
                assert (hung.value.code, hung.value.reason) == ("UNAVAILABLE", "SEGMENTATION_HANGS")
                # It still hangs, and another session may have its place.
                async with client.open_stream() as third:
                    await answer(third)
                    await answer(neighbour)
                assert 'portrait_sessions_hung_total{transport="grpc"} 1.0' in scrape(told["page"])
                # Nor does the end of the process wait for it.
                process.send_signal(signal.SIGTERM)
                async with timeout(60):
                    while not has_ended():
                        await asyncio.sleep(0.05)
        status, log = await asyncio.to_thread(ended, process)
    assert status == 0, log
    assert "session hangs" in log
    assert "Traceback" not in log


@pytest.fixture(scope="module")
def shown() -> Clip:
    return clip(*SIZE, 30)


async def test_sigterm_under_load_lets_streams_go_on_and_then_ends_all_of_them_in_order(shown: Clip) -> None:
    """Streams of both kinds on both workers, that do not stop by themselves."""
    options = ("--workers", "2", "--media-ports", "0-0", "--drain-seconds", "2")
    with serving(*options) as (process, told):
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(Client(told["grpc"]))
            streams = [await stack.enter_async_context(client.open_stream()) for _ in range(4)]
            viewers = [
                await stack.enter_async_context(viewer(told["page"].rstrip("/"), Camera(shown))) for _ in range(2)
            ]
            for one in viewers:
                await one.connect()
                await one.frame()
            busy = [asyncio.create_task(until_the_end(stream)) for stream in streams]
            process.send_signal(signal.SIGTERM)
            for one in viewers:
                await one.frame()
            ends = await asyncio.gather(*busy)
            status, log = await asyncio.to_thread(ended, process)
    assert [(end.code, end.reason) for end, _ in ends] == [("UNAVAILABLE", "DRAINING")] * 4, (ends, log)
    assert all(answered > 0 for _, answered in ends)
    assert status == 0, log
    assert "Traceback" not in log


async def until_the_end(stream: Stream) -> tuple[ClientError, int]:
    """Why the stream ended, and how many frames were answered after it was told that it would."""

    async def send() -> None:
        while True:
            await stream.send(FRAME, 1)
            await asyncio.sleep(1 / 30)

    # Apart: a write that comes too late would hide what the reading end is told.
    sending, answered = asyncio.create_task(send()), 0
    try:
        while True:
            assert await stream.receive() is not None
            answered += stream.leaving
    except ClientError as error:
        return error, answered
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_a_frame_under_way_at_the_end_does_not_cost_its_client_the_reason() -> None:
    begun = threading.Semaphore(0)

    def slow(frame: Frame) -> Mask:
        begun.release()
        time.sleep(1.0)
        return full_mask(frame)

    async with AsyncExitStack() as stack:
        stack.enter_context(instead_of_the_embedded(FakeModel(slow)))
        async with run_service(settings("always").model_copy(update={"hang_seconds": 20.0})) as running:
            client = await stack.enter_async_context(Client(f"127.0.0.1:{running.grpc_port}"))
            stream = await stack.enter_async_context(client.open_stream())
            await stream.send(FRAME, 0)
            await asyncio.to_thread(begun.acquire)
        with pytest.raises(ClientError) as end:
            await until_cut(stream)
    assert end.value.reason == "DRAINING"


async def until_cut(stream: Stream) -> None:
    while await stream.receive():
        pass
