"""gRPC: what is refused, saying what came and what is expected."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio
import pytest

from portrait.client import Client, ClientError, Picture
from portrait.v1 import segmentation_pb2 as pb
from tests.calls import client, fake_service, jpeg, received, shown
from tests.fakes import FakeModel, Gate, full_mask
from tests.messages import REFLECTION, SEGMENT_STREAM, UNARY
from tests.people import Clip, room

__all__ = ["client", "shown"]  # fixtures


BAD_PICTURES = {
    "no picture": (Picture.jpeg(b"hello"), "5 bytes that are no picture"),
    "cut short": (Picture.jpeg(jpeg(room(320, 240)).message.data[:4000]), "damaged or cut short after 4000 bytes"),
    "nothing": (Picture(pb.Picture()), "format: got 0, expected JPEG"),
    "without pixels": (Picture.i420(b"", 0, 0), "got 0x0, expected at least 1x1"),
    "wrong byte count": (Picture.i420(bytes(100), 64, 48), "got 100 bytes for 64x48 I420, expected 4608"),
    "too large": (Picture.i420(bytes(6), 20_000, 20_000), "20000x20000 is 400000000 pixels; expected at most 2088960"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
async def test_a_bad_picture_costs_its_own_reply_only(client: Client, shown: Clip, name: str) -> None:
    picture, message = BAD_PICTURES[name]
    async with client.open_stream(every_frame=True) as stream, client.open_stream(every_frame=True) as neighbour:
        await stream.send(picture, 1)
        await stream.send(jpeg(shown.frames[0]), 2)
        await neighbour.send(jpeg(shown.frames[0]), 3)
        bad, good, other = await stream.receive(), await stream.receive(), await neighbour.receive()
    assert bad is not None
    assert bad.error is not None
    assert (bad.id, bad.error.code, bad.error.reason) == (1, "INVALID_ARGUMENT", "BAD_PICTURE")
    assert message in bad.error.message
    assert good is not None
    assert other is not None
    assert (good.id, good.error, other.id, other.error) == (2, None, 3, None)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"mode": "sepia"}, "unknown mode 'sepia'; expected one of"),
        ({"mode": "color", "color": "green"}, "got 'green', expected #rrggbb"),
        ({"mode": "image"}, "got mode image without a background"),
        ({"mode": "image", "background_name": "moon"}, "unknown background 'moon'; expected one of"),
        ({"mode": "image", "background_picture": b"x"}, "1 bytes that are no picture"),
        ({"mode": "blur", "format": pb.PICTURE_FORMAT_GRAY8}, "only mask and alpha are grey"),
        ({"mode": "blur", "format": pb.PICTURE_FORMAT_RGBA32}, "only cutout has an alpha"),
        ({"mode": "blur", "format": 99}, "format: got 99, expected one of"),
        ({"model": "nope"}, "unknown model 'nope'; expected one of"),
    ],
)
async def test_bad_options_are_refused_with_details(client: Client, output: dict[str, Any], message: str) -> None:
    with pytest.raises(ClientError, match=message) as streamed:
        async with client.open_stream(**output):
            pass
    assert streamed.value.code == "INVALID_ARGUMENT"
    with pytest.raises(ClientError, match=message):
        await client.segment(jpeg(room(64, 64)), **output)


@pytest.mark.parametrize("what", ["x", "é", "🎥"])
@pytest.mark.parametrize("field", ["mode", "color", "background_name", "model"])
async def test_a_long_value_is_refused_as_a_short_one_is(client: Client, field: str, what: str) -> None:
    """By a status that fits into its headers, at which no connection breaks."""
    async with client.open_stream() as neighbour:
        with pytest.raises(ClientError) as refused:
            await client.segment(jpeg(room(64, 64)), **{field: what * 50_000})
        assert refused.value.code == "INVALID_ARGUMENT"
        assert f"{field.removesuffix('_name')}: " in str(refused.value)
        assert what * 20 in str(refused.value)
        assert "expected" in str(refused.value)
        await neighbour.send(jpeg(room(64, 64)), 1)
        assert await neighbour.receive() is not None


async def test_bad_options_in_the_middle_end_that_stream_alone(client: Client, shown: Clip) -> None:
    async with client.open_stream(every_frame=True) as stream, client.open_stream(every_frame=True) as neighbour:
        await stream.change({"mode": "sepia"})
        with pytest.raises(ClientError, match="unknown mode 'sepia'"):
            await stream.receive()
        await neighbour.send(jpeg(shown.frames[0]), 1)
        reply = await neighbour.receive()
        assert reply is not None
        assert reply.error is None


async def test_a_frame_before_the_configuration_is_refused(client: Client) -> None:
    call = client._stub.SegmentStream()
    await call.write(pb.SegmentStreamRequest(frame=pb.Frame(id=1)))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()
    error = ClientError.from_rpc(refused.value)
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "NOT_CONFIGURED")
    assert "got frame as the first message, expected config" in error.message


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([pb.SegmentStreamRequest(config=pb.StreamConfig(delivery=9))], "delivery: got 9"),  # type: ignore[arg-type]
        ([pb.SegmentStreamRequest()], "got nothing as the first message, expected config"),
        ([], "got nothing as the first message, expected config"),
        (
            [pb.SegmentStreamRequest(config=pb.StreamConfig())] * 2,
            "got config after the first message, expected frame or control",
        ),
    ],
    ids=["an unknown delivery", "an empty message", "no message", "a second configuration"],
)
async def test_a_stream_that_begins_wrong_is_refused(
    client: Client, messages: list[pb.SegmentStreamRequest], message: str
) -> None:
    call = client._stub.SegmentStream()
    for each in messages:
        await call.write(each)
    await call.done_writing()

    async def read_all() -> None:
        while await call.read() is not grpc.aio.EOF:
            pass

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await read_all()
    assert message in ClientError.from_rpc(refused.value).message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (pb.StreamConfig(prior_every=2_000_000), "got 2000000, expected 0 to 1000000"),
        (pb.StreamConfig(output=pb.Output(mask_size=7)), "mask_size: got 7"),  # type: ignore[arg-type]
        (
            pb.StreamConfig(output=pb.Output(mode="blur", format=pb.PICTURE_FORMAT_GRAY1)),
            "got GRAY1 for mode",
        ),
    ],
)
async def test_a_bad_configuration_is_refused(client: Client, config: pb.StreamConfig, message: str) -> None:
    call = client._stub.SegmentStream()
    await call.write(pb.SegmentStreamRequest(config=config))
    with pytest.raises(grpc.aio.AioRpcError, match=message):
        await call.read()


@pytest.mark.parametrize("path", [*UNARY, SEGMENT_STREAM, REFLECTION])
async def test_a_message_over_the_limit_is_refused_with_details(path: str) -> None:
    """For every call alike; the service takes 4,000,000 bytes here."""
    async with fake_service(FakeModel(full_mask)) as (client, _), client.open_stream(every_frame=True) as neighbour:
        channel = client._channel
        assert channel is not None

        async def called(message: bytes) -> None:
            async def messages() -> AsyncIterator[bytes]:
                yield message

            if path in UNARY:
                await channel.unary_unary(path)(message)
            else:
                async for _ in channel.stream_stream(path)(messages()):
                    pass

        async def refusal(size: int) -> ClientError:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await called(b"\xff" * size)
            return ClientError.from_rpc(refused.value)

        assert (await refusal(4_000_000)).reason == "BAD_MESSAGE"
        error = await refusal(4_000_001)
        assert (error.code, error.reason, error.retry_after) == ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE", None)
        assert error.message == "message: got 4000001 bytes, expected at most 4000000"
        assert (await refusal(8_000_000)).reason == "MESSAGE_TOO_LARGE"
        beyond = await refusal(8_000_001)
        assert (beyond.code, beyond.reason) == ("RESOURCE_EXHAUSTED", "")
        await neighbour.send(jpeg(room(64, 48)), 1)
        assert (await received(neighbour)).error is None


async def test_a_frame_over_the_limit_is_no_reason_to_try_again() -> None:
    async with fake_service(FakeModel(full_mask)) as (client, _):
        pictures = [jpeg(room(64, 48)), Picture.jpeg(bytes(4_000_001))]
        async with aclosing(client.stream(pictures, every_frame=True, reconnect_seconds=600)) as replies:
            assert (await anext(replies)).error is None
            with pytest.raises(ClientError) as refused:
                await anext(replies)
        assert refused.value.reason == "MESSAGE_TOO_LARGE"


async def test_one_stream_more_than_the_limit_is_told_when_to_try_again(shown: Clip) -> None:
    async with fake_service(FakeModel(Gate()), limit=1) as (client, sessions):
        async with client.open_stream():
            with pytest.raises(ClientError, match="1 of 1 sessions are open") as refused:
                async with client.open_stream():
                    pass
        assert (refused.value.code, refused.value.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_SESSIONS")
        assert refused.value.retry_after == 5.0
        assert await sessions.drain(60) == 0
