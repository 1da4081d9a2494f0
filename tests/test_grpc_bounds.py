"""What gRPC clients of other languages do by habit is permitted within a stated bound: pings, metadata, health."""

import asyncio
from asyncio import timeout
from contextlib import AsyncExitStack

import aiohttp
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from portrait.client import ClientError
from portrait.server.app import RunningService
from portrait.transports.grpc.server import BOUND_OPTIONS, INFERENCE, PING_INTERVAL_MS, SERVICE, SPARE_CALLS
from portrait.transports.grpc.validation import MOST_FIELD_BYTES
from portrait.v1 import segmentation_pb2 as pb
from portrait.v1 import segmentation_pb2_grpc as pb_grpc
from tests.calls import fake_service
from tests.fakes import FakeModel, full_mask

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
SETTINGS_ACK = b"\0\0\0\4\1\0\0\0\0"
PING = b"\0\0\x08\6\0\0\0\0\0" + bytes(8)
GOAWAY, PING_ACK = 7, (6, 1)
"""Frames of HTTP/2 (RFC 9113, section 6), and their types and flags."""

PINGS = 5


async def frames_after(port: int, pause: float) -> list[tuple[int, int]]:
    """(type, flags) of the frames that come on a connection without a call that pings so often, until it is closed.

    Its end is waited for no longer than for the answers to all pings.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found: list[tuple[int, int]] = []

    async def read() -> None:
        try:
            while found.count(PING_ACK) < PINGS:
                head = await reader.readexactly(9)
                await reader.readexactly(int.from_bytes(head[:3], "big"))
                found.append((head[3], head[4]))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass

    try:
        writer.write(PREFACE + SETTINGS + SETTINGS_ACK)
        reading = asyncio.create_task(read())
        for _ in range(PINGS):
            writer.write(PING)
            await asyncio.sleep(pause)
        async with timeout(60):
            await reading
    finally:
        writer.close()
    return found


async def test_an_idle_connection_may_ping_as_often_as_the_bound_says(service: RunningService) -> None:
    found = await frames_after(service.grpc_port, 1.1 * PING_INTERVAL_MS / 1000)
    assert found.count(PING_ACK) == PINGS, found
    assert GOAWAY not in [kind for kind, _ in found]


async def test_an_idle_connection_that_pings_without_a_pause_is_closed(service: RunningService) -> None:
    found = await frames_after(service.grpc_port, 0.01)
    assert GOAWAY in [kind for kind, _ in found]


async def test_calls_are_bounded_of_one_connection_and_of_all() -> None:
    """Health is watched, which takes neither a session nor credentials."""
    sessions, of_one = 60, dict(BOUND_OPTIONS)["grpc.max_concurrent_streams"]
    of_all = sessions + SPARE_CALLS
    assert of_one < of_all < 2 * of_one
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with AsyncExitStack() as stack, timeout(60):
        client, _ = await stack.enter_async_context(fake_service(FakeModel(full_mask), sessions))
        [target] = client._targets
        channels = [await stack.enter_async_context(grpc.aio.insecure_channel(target, own)) for _ in range(2)]
        one, other = (health_pb2_grpc.HealthStub(channel) for channel in channels)
        watched = health_pb2.HealthCheckRequest()
        calls = [one.Watch(watched) for _ in range(of_one + 1)]
        await asyncio.gather(*(call.read() for call in calls[:-1]))
        waiting = asyncio.ensure_future(calls[-1].read())
        calls += [other.Watch(watched) for _ in range(of_all - of_one)]
        await asyncio.gather(*(call.read() for call in calls[of_one + 1 :]))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await other.Watch(watched).read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not waiting.done()  # the client has sent it last on the first connection, before all on the second
        for call in calls:
            call.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.parametrize("length", [4000, MOST_FIELD_BYTES, MOST_FIELD_BYTES + 1, 12_000, 20_000])
async def test_the_bound_of_metadata_is_that_of_a_head_over_http(service: RunningService, length: int) -> None:
    """It is no matter of chance either: gRPC alone refuses some of those from 8 to 16 KB."""
    taken = length <= MOST_FIELD_BYTES
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        stub = pb_grpc.SegmentationServiceStub(channel)
        for _ in range(20):
            try:
                await stub.ListModels(pb.ListModelsRequest(), metadata=[("x-token", "y" * length)], timeout=60)
            except grpc.aio.AioRpcError as error:
                refused = ClientError.from_rpc(error)
                assert not taken
                assert refused.code in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")
            else:
                assert taken
    url = f"http://127.0.0.1:{service.http_port}/v1/models"
    async with aiohttp.ClientSession() as http, http.get(url, headers={"X-Token": "y" * length}) as response:
        assert (response.status == 200) is taken


@pytest.mark.parametrize("name", ["", SERVICE, INFERENCE])
async def test_health_knows_every_service(service: RunningService, name: str) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=60)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
