"""gRPC streams: every way one ends."""

import asyncio
from collections import Counter

import grpc
import grpc.aio
import pytest

from portrait.client import Client, ClientError
from portrait.server.app import RunningService
from portrait_client.stream import Stream
from tests.calls import client, fake_service, jpeg, received, shown
from tests.fakes import FakeModel, full_mask
from tests.people import Clip

__all__ = ["client", "shown"]  # fixtures


async def test_a_stream_says_goaway_goes_on_and_is_cut_at_the_deadline(service: RunningService, shown: Clip) -> None:
    async with Client(f"127.0.0.1:{service.grpc_port}") as client, client.open_stream(every_frame=True) as stream:
        await stream.send(jpeg(shown.frames[0]), 0)
        await received(stream)
        draining = asyncio.create_task(service.sessions.drain(4.0))
        first = await stream._call.read()
        assert first is not None
        assert 0 < first.goaway.time_left.ToMilliseconds() <= 4000
        await stream.send(jpeg(shown.frames[1]), 1)
        reply = await received(stream)
        assert (reply.id, reply.error) == (1, None)
        with pytest.raises(ClientError, match="the service stops") as refused:
            async with client.open_stream():
                pass
        assert (refused.value.code, refused.value.reason) == ("UNAVAILABLE", "DRAINING")
        assert refused.value.retry_after == 5.0
        with pytest.raises(ClientError, match="the service stops") as cut:
            await stream.receive()
        assert (cut.value.code, cut.value.reason) == ("UNAVAILABLE", "DRAINING")
        assert await draining == 1


async def test_a_drained_stream_ends_with_unavailable(service: RunningService, client: Client) -> None:
    async with client.open_stream() as stream:
        assert await service.sessions.drain(0) == 1
        with pytest.raises(ClientError, match="the service stops") as ended:
            await stream.receive()
    assert (ended.value.code, ended.value.reason) == ("UNAVAILABLE", "DRAINING")


async def test_a_client_that_vanishes_leaves_no_session(service: RunningService, shown: Clip) -> None:
    async with Client(f"127.0.0.1:{service.grpc_port}") as vanishing, vanishing.open_stream() as stream:
        await stream.send(jpeg(shown.frames[0]), 1)
        assert len(service.sessions) == 1
    assert await service.sessions.drain(60) == 0


async def test_a_stream_that_never_sends_a_frame_ends(shown: Clip) -> None:
    async with fake_service(FakeModel(full_mask), idle_seconds=1.0) as (client, sessions):
        async with client.open_stream() as stream:
            await stream.change(reset_prior=True)  # a control is no frame
            with pytest.raises(ClientError, match="no frame for 1 s") as ended:
                await stream.receive()
            assert (ended.value.code, ended.value.reason) == ("DEADLINE_EXCEEDED", "IDLE")
        call = client._stub.SegmentStream()
        with pytest.raises(grpc.aio.AioRpcError, match="got no message for 1 s, expected config"):
            await call.read()
        assert await sessions.drain(60) == 0


async def test_a_sender_that_does_not_stop_is_told_why_its_stream_ended(service: RunningService, shown: Clip) -> None:
    """Its last message is on the way when the server ends the call, in every order."""
    picture = jpeg(shown.frames[0])

    async def send(stream: Stream) -> None:
        while True:
            await stream.send(picture, 0)

    async with Client(f"127.0.0.1:{service.grpc_port}") as client:
        reasons = Counter[str]()
        for number in range(30):
            async with client.open_stream(every_frame=number % 2 == 0) as stream:
                sending = asyncio.create_task(send(stream))
                await received(stream)
                service.sessions[stream.info.session_id].end("somebody said so")
                for end in await asyncio.gather(sending, drain(stream), return_exceptions=True):
                    assert isinstance(end, ClientError)
                    reasons[end.reason] += 1
    assert reasons == {"SESSION_ENDED": 60}


async def drain(stream: Stream) -> None:
    while await stream.receive():
        pass
