"""The Python client: its moves from server to server."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import numpy as np
import pytest

from portrait.client import Client, ClientError, Reply
from portrait.server.app import RunningService, run_service
from portrait.settings import Settings
from tests.calls import client, fake_service, i420, pictures, received, shown
from tests.fakes import FakeModel, Gate, full_mask
from tests.people import Array, Clip, room
from tests.proxy import Proxy

__all__ = ["client", "shown"]  # fixtures


def rgb(frame: Array) -> Array:
    return np.ascontiguousarray(frame[..., ::-1])


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Of several services in one process: a range of media ports has one owner."""
    return settings.model_copy(update={"media_ports": "0-0"})


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
                    draining = asyncio.create_task(old.sessions.drain(60))
        assert await draining == 0, "the stream was cut instead of leaving"
        assert opened(new) == 1, "the stream stayed"
        assert len(new.sessions) == 0
    assert [reply.id for reply in replies] == list(range(24))
    assert all(reply.error is None and reply.dropped == 0 for reply in replies)
    for reply, uninterrupted in zip(replies, whole, strict=True):
        assert np.mean((reply.array > 127) != (uninterrupted > 127)) < 0.002


def opened(service: RunningService) -> float | None:
    """How many streams there have been."""
    return service._metrics.registry.get_sample_value("portrait_sessions_opened_total", {"transport": "grpc"})


@asynccontextmanager
async def replicas(settings: Settings) -> AsyncIterator[tuple[Proxy, RunningService, Client]]:
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
        replies, cut = list[Reply](), False
        async for reply in client.stream(frames):
            replies.append(reply)
            if reply.id >= 30 and not cut:
                cut = True
                await wire.cut()
    assert cut
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


async def test_a_server_that_is_not_there_is_given_up_in_time() -> None:
    async with Proxy(1) as wire:
        port = wire.port
    async with Client(f"127.0.0.1:{port}") as client:
        with pytest.raises(ClientError, match="UNAVAILABLE"):
            await read_all(client.stream([room(64, 48)], reconnect_seconds=0.3))


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_connection_lost_before_a_word_is_tried_once_more(settings: Settings, lost: int) -> None:
    """As one that the kernel handed to a worker that was dying."""
    async with (
        run_service(settings) as running,
        Proxy(running.grpc_port, lost=lost) as wire,
        Client(f"127.0.0.1:{wire.port}") as client,
        AsyncExitStack() as stack,
    ):
        if lost == 2:
            with pytest.raises(ClientError, match="UNAVAILABLE"):
                await stack.enter_async_context(client.open_stream())
        else:
            stream = await stack.enter_async_context(client.open_stream())
            await stream.send(room(64, 48), 1)
            assert await received(stream)
        assert wire.connections == 2


async def test_a_server_that_refuses_is_not_asked_again(settings: Settings) -> None:
    async with (
        run_service(settings) as running,
        Proxy(running.grpc_port) as wire,
        Client(f"127.0.0.1:{wire.port}") as client,
    ):
        await running.sessions.drain(0)
        with pytest.raises(ClientError, match="UNAVAILABLE") as refused:
            async with client.open_stream():
                pass
        assert refused.value.reason == "DRAINING"
        assert wire.connections == 1


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
        await asyncio.sleep(3.0)
        yield room(64, 48)

    stream = client.stream(source(), reply_seconds=2.0, reconnect_seconds=0)
    assert [reply.id async for reply in stream] == [0, 1]


async def test_a_slow_reader_is_no_late_reply(client: Client) -> None:
    """What waits to be read has come in time."""
    ids = []
    async for reply in client.stream([room(64, 48)] * 8, every_frame=True, reply_seconds=2.0, reconnect_seconds=0):
        ids.append(reply.id)
        if reply.id == 2:
            await asyncio.sleep(3.0)
    assert ids == list(range(8))


async def test_what_the_source_raises_is_raised(client: Client, service: RunningService) -> None:
    async def source() -> AsyncIterator[Array]:
        yield room(64, 48)
        raise ZeroDivisionError("the camera fell down")

    with pytest.raises(ZeroDivisionError, match="the camera fell down"):
        await read_all(client.stream(source()))
    assert await service.sessions.drain(60) == 0


async def test_a_refusal_is_not_waited_for(shown: Clip) -> None:
    async with fake_service(FakeModel(full_mask), limit=1) as (client, _), client.open_stream():
        with pytest.raises(ClientError, match="1 of 1 sessions are open") as refused:
            await read_all(client.stream([room(64, 48)]))
        assert refused.value.retry_after == 5.0


async def test_leaving_a_stream_early_leaves_nothing(service: RunningService, client: Client) -> None:
    async with aclosing(client.stream(itertools.repeat(room(64, 48)))) as stream:
        async for reply in stream:
            if reply.id >= 5:
                break
    assert await service.sessions.drain(60) == 0
    names = {task.get_name() for task in asyncio.all_tasks()}
    assert not {name for name in names if name.startswith("portrait-client")}
