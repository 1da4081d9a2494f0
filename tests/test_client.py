"""The Python client: its window, its moves from server to server, and its twin without asyncio."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import numpy as np
import pytest

from portrait.app import Running, run_service
from portrait.client import Client, ClientError, Picture, Reply, SyncClient
from portrait.client.window import Window
from portrait.frame import Frame
from portrait.mask import Mask
from portrait.settings import Settings
from tests.fakes import FakeModel, Gate, full_mask
from tests.people import Array, Clip, room
from tests.test_grpc import client, fake_service, i420, pictures, shown

__all__ = ["client", "shown"]  # fixtures


def rgb(frame: Array) -> Array:
    return np.ascontiguousarray(frame[..., ::-1])


class Proxy:
    """A wire between a client and a server: it can be slow, and it can be cut."""

    def __init__(self, target: int, delay: float = 0.0) -> None:
        self._target, self._delay = target, delay
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.port = 0

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def cut(self) -> None:
        """The cable is pulled, for good."""
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, far_writer]
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            self._tasks.append(asyncio.create_task(self._carry(source, sink)))

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await source.read(65536):
            loop.call_later(self._delay, sink.write, data) if self._delay else sink.write(data)
        sink.close()


def test_a_window_grows_by_one_in_a_window_of_quick_replies() -> None:
    window = Window(2, 8)
    for _ in range(2):
        window.replied(0.01, 0.005, 0)
    assert window.size == 2
    window.replied(0.01, 0.005, 0)
    assert window.size == 3
    for _ in range(100):
        window.replied(0.01, 0.005, 0)
    assert window.size == 8


@pytest.mark.parametrize("reply", [(0.001, 0.001, 3), (0.1, 0.005, 0)], ids=["frames dropped", "waited behind others"])
def test_a_window_is_halved_once_for_one_moment(reply: tuple[float, float, int]) -> None:
    window = Window(8, 8)
    window.replied(0.001, 0.005, 0)
    for _ in range(8):  # what was on its way already
        window.replied(*reply)
    assert window.size == 4
    for _ in range(40):
        window.replied(*reply)
    assert window.size == 1


def test_a_server_says_how_much_is_of_use() -> None:
    window = Window(2, 64)
    window.limit(1)
    assert window.size == 1


async def most_in_flight(client: Client, enough: int, frames: int) -> int:
    """Frames unanswered at once, at most; ends when it is `enough`, or after so many frames."""
    sent = answered = most = 0

    async def source() -> AsyncIterator[Array]:
        nonlocal sent, most
        while sent < frames and most < enough:
            sent += 1
            most = max(most, sent - answered)
            yield room(64, 48)

    async for _ in client.stream(source(), every_frame=True):
        answered += 1
    assert answered == sent
    return most


async def test_a_long_link_gets_more_frames_in_flight_than_a_short_one() -> None:
    def steady(frame: Frame) -> Mask:
        time.sleep(0.004)
        return full_mask(frame)

    async with fake_service(FakeModel(steady)) as (near, _):
        port = int(near._targets[0].rpartition(":")[2])
        async with Proxy(port, 0.03) as wire, Client(f"127.0.0.1:{wire.port}") as far:
            assert await most_in_flight(far, enough=7, frames=2000) == 7
        assert await most_in_flight(near, enough=64, frames=100) < 7


async def test_a_stopping_servers_stream_goes_on_at_the_next_without_a_jump(shown: Clip, settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        old, new = [await stack.enter_async_context(run_service(settings)) for _ in range(2)]
        client = await stack.enter_async_context(Client(*(f"127.0.0.1:{one.grpc_port}" for one in (old, new))))
        whole = [reply.array async for reply in client.stream(pictures(shown.frames, i420), every_frame=True)]
        replies: list[Reply] = []
        stream = client.stream(pictures(shown.frames, i420), every_frame=True)
        async with aclosing(stream):
            async for reply in stream:
                replies.append(reply)
                if reply.id == 10:
                    draining = asyncio.create_task(old.sessions.drain(10))
        assert await draining == 0, "the stream was cut instead of leaving"
        assert len(new.sessions) == 0
    assert [reply.id for reply in replies] == list(range(24))
    assert all(reply.error is None and reply.dropped == 0 for reply in replies)
    for reply, uninterrupted in zip(replies, whole, strict=True):
        assert np.mean((reply.array > 127) != (uninterrupted > 127)) < 0.002


@asynccontextmanager
async def replicas(settings: Settings) -> AsyncIterator[tuple[Proxy, Running, Client]]:
    """A client of two servers, the first of them behind a wire that can be cut."""
    async with (
        run_service(settings) as first,
        run_service(settings) as second,
        Proxy(first.grpc_port) as wire,
        Client(f"127.0.0.1:{wire.port}", f"127.0.0.1:{second.grpc_port}") as client,
    ):
        yield wire, second, client


async def test_a_lost_server_costs_no_frame_of_an_exact_stream(shown: Clip, settings: Settings) -> None:
    frames = [rgb(frame) for frame in shown.frames] * 3
    async with replicas(settings) as (wire, second, client):
        ids, stream = [], client.stream(frames, every_frame=True)
        async for reply in stream:
            assert reply.error is None
            ids.append(reply.id)
            if reply.id == 30:
                await wire.cut()
        assert ids == list(range(72))
        assert len(second.sessions) == 0


async def test_a_lost_server_costs_a_live_stream_what_was_on_its_way(shown: Clip, settings: Settings) -> None:
    frames = [rgb(frame) for frame in shown.frames] * 3
    async with replicas(settings) as (wire, _, client):
        replies = []
        async for reply in client.stream(frames):
            replies.append(reply)
            if reply.id == 30:
                await wire.cut()
    assert sum(1 + reply.dropped for reply in replies) == 72
    assert replies[-1].id == 71


async def test_after_a_loss_the_stream_goes_on_from_a_prior(shown: Clip) -> None:
    first, second = FakeModel(full_mask), FakeModel(full_mask)
    async with fake_service(first) as (one, _), fake_service(second) as (other, _):
        port = int(one._targets[0].rpartition(":")[2])
        async with Proxy(port) as wire, Client(f"127.0.0.1:{wire.port}", *other._targets) as client:
            async for reply in client.stream([room(64, 48)] * 40, every_frame=True):
                if reply.id == 20:
                    await wire.cut()
    assert [prior.values.min() for prior in second.priors] == [255]


async def test_without_patience_a_loss_is_an_error(shown: Clip, settings: Settings) -> None:
    async with (
        run_service(settings) as running,
        Proxy(running.grpc_port) as wire,
        Client(f"127.0.0.1:{wire.port}") as client,
    ):
        stream = client.stream([rgb(shown.frames[0])] * 50, reconnect_seconds=0)
        await anext(stream)
        await wire.cut()
        with pytest.raises(ClientError, match="UNAVAILABLE"):
            await read_all(stream)


async def read_all(stream: AsyncIterator[Reply]) -> list[Reply]:
    return [reply async for reply in stream]


async def test_nobody_there_is_said_after_the_patience() -> None:
    async with Proxy(1) as wire:
        port = wire.port
    async with Client(f"127.0.0.1:{port}") as client:
        with pytest.raises(ClientError, match="UNAVAILABLE"):
            await read_all(client.stream([room(64, 48)], reconnect_seconds=0.3))


async def test_a_frame_without_a_reply_is_an_error_in_time() -> None:
    gate = Gate()
    async with fake_service(FakeModel(gate)) as (client, _):
        with pytest.raises(ClientError, match=r"no reply for 0\.3 s") as late:
            await read_all(client.stream([room(64, 48)], reply_seconds=0.3, reconnect_seconds=0))
        assert late.value.code == "DEADLINE_EXCEEDED"
        with pytest.raises(ClientError, match="DEADLINE_EXCEEDED"):
            await client.segment(room(64, 48), timeout=0.2)
        gate.let_through.release(10)


async def test_a_slow_source_is_no_late_reply(client: Client) -> None:
    async def source() -> AsyncIterator[Array]:
        yield room(64, 48)
        await asyncio.sleep(0.5)
        yield room(64, 48)

    stream = client.stream(source(), reply_seconds=0.3, reconnect_seconds=0)
    assert [reply.id async for reply in stream] == [0, 1]


async def test_what_the_source_raises_is_raised(client: Client, service: Running) -> None:
    async def source() -> AsyncIterator[Array]:
        yield room(64, 48)
        raise ZeroDivisionError("the camera fell down")

    with pytest.raises(ZeroDivisionError, match="the camera fell down"):
        await read_all(client.stream(source()))
    assert await service.sessions.drain(10) == 0


async def test_a_refusal_is_not_waited_for(shown: Clip) -> None:
    async with fake_service(FakeModel(full_mask), limit=1) as (client, _), client.open_stream():
        with pytest.raises(ClientError, match="1 of 1 sessions are open") as refused:
            await read_all(client.stream([room(64, 48)]))
        assert refused.value.retry_after == 5.0


async def test_leaving_a_stream_early_leaves_nothing(service: Running, client: Client) -> None:
    async with aclosing(client.stream(itertools.repeat(room(64, 48)))) as stream:
        async for reply in stream:
            if reply.id >= 5:
                break
    assert await service.sessions.drain(10) == 0
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert not {name for name in names if name.startswith("portrait-client")}


async def test_the_sync_client_gives_the_same_masks(service: Running, client: Client, shown: Clip) -> None:
    expected = [reply.array async for reply in client.stream(pictures(shown.frames, i420), every_frame=True)]
    target = f"127.0.0.1:{service.grpc_port}"

    def source() -> Iterator[Picture]:
        for frame in shown.frames:
            time.sleep(0.001)  # a camera blocks
            yield i420(frame)

    def run() -> tuple[list[Array], Array, int]:
        with SyncClient(target) as sync:
            masks = [reply.array for reply in sync.stream(source(), every_frame=True)]
            return masks, sync.segment(rgb(shown.frames[0]), mode="cutout").array, len(sync.models())

    masks, cutout, models = await asyncio.to_thread(run)
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(masks, expected, strict=True))
    assert cutout.shape == (360, 640, 4)
    assert models >= 1


async def test_the_sync_client_can_leave_a_stream_and_raises_what_its_twin_raises(service: Running) -> None:
    def run() -> None:
        with SyncClient(f"127.0.0.1:{service.grpc_port}") as sync:
            stream: Any = sync.stream(itertools.repeat(room(64, 48)))
            assert next(stream).id == 0
            stream.close()
            with pytest.raises(ClientError, match="unknown mode 'sepia'"):
                list(sync.stream([room(64, 48)], mode="sepia"))

    await asyncio.to_thread(run)
    assert await service.sessions.drain(10) == 0
