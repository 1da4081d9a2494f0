"""gRPC: a real server and real clients over loopback."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import cv2
import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from portrait.app import Running
from portrait.backgrounds import Backgrounds
from portrait.client import Client, ClientError, Picture
from portrait.metrics import Metrics
from portrait.sessions import Sessions
from portrait.transports.grpc import SERVICE, serve_grpc
from portrait.v1 import segmentation_pb2 as pb
from tests.fakes import FakeModel, Gate, failing, only
from tests.people import Array, Clip, clip, iou, room

SIZE = (640, 360)


def jpeg(frame: Array) -> Picture:
    return Picture.jpeg(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())


def i420(frame: Array) -> Picture:
    height, width = frame.shape[:2]
    return Picture.i420(cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420).tobytes(), width, height)


def rgb24(frame: Array) -> Picture:
    return Picture.rgb24(np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8))


async def pictures(frames: list[Array], encode: Any) -> AsyncIterator[Picture]:
    for frame in frames:
        yield encode(frame)


@pytest.fixture
async def client(service: Running) -> AsyncIterator[Client]:
    async with Client(f"127.0.0.1:{service.grpc_port}") as opened:
        yield opened


@asynccontextmanager
async def fake_service(
    model: FakeModel, limit: int = 4, idle_seconds: float = 30.0
) -> AsyncIterator[tuple[Client, Sessions]]:
    """A real server around a fake network."""
    limits: dict[str, Any] = {"max_frame_pixels": 10**6, "max_still_pixels": 10**6, "max_message_bytes": 4 * 10**6}
    async with (
        Sessions(only(model), limit, Metrics()) as sessions,
        serve_grpc(sessions, Backgrounds(), host="127.0.0.1", port=0, idle_seconds=idle_seconds, **limits) as server,
        Client(f"127.0.0.1:{server.port}") as opened,
    ):
        yield opened, sessions


@pytest.fixture(scope="module")
def shown() -> Clip:
    return clip(*SIZE, 24)


@pytest.mark.parametrize("encode", [jpeg, i420, rgb24])
async def test_a_stream_gives_every_frame_its_own_good_mask(client: Client, shown: Clip, encode: Any) -> None:
    replies = [reply async for reply in client.stream(pictures(shown.frames, encode), every_frame=True)]
    assert [reply.id for reply in replies] == list(range(24))
    assert all(reply.dropped == 0 and reply.error is None for reply in replies)
    overlaps = []
    for reply, truth in zip(replies, shown.masks, strict=True):
        assert reply.array.shape == (224, 224)
        overlaps.append(iou(truth, np.asarray(cv2.resize(reply.array, SIZE), np.uint8)))
    assert np.mean(overlaps) > 0.85
    assert min(overlaps) > 0.8


async def test_ids_and_timestamps_are_echoed_with_server_times(client: Client, shown: Clip) -> None:
    async with client.open_stream(every_frame=True) as stream:
        assert stream.info.model.name == "portrait"
        assert stream.info.max_pixels == 1920 * 1088
        for frame_id, timestamp in [(7, -5), (7, 0), (2**63, 2**62)]:
            await stream.send(jpeg(shown.frames[0]), frame_id, timestamp)
            reply = await stream.receive()
            assert reply is not None
            assert (reply.id, reply.timestamp_us) == (frame_id, timestamp)
            assert 0 < reply.work_seconds < 10
            assert 0 <= reply.wait_seconds < 10


async def test_a_second_streams_prior_never_mixes_with_the_firsts(client: Client, shown: Clip) -> None:
    others = clip(*SIZE, 24, number=4)
    alone = [reply.array async for reply in client.stream(pictures(shown.frames, i420), every_frame=True)]
    async with client.open_stream(every_frame=True) as one, client.open_stream(every_frame=True) as other:
        for i, (mine, theirs) in enumerate(zip(shown.frames, others.frames, strict=True)):
            await other.send(i420(theirs), i)
            await one.send(i420(mine), i)
            await other.receive()
            reply = await one.receive()
            assert reply is not None
            assert np.array_equal(reply.array, alone[i])


@pytest.mark.parametrize(
    ("mode", "layout", "shape"),
    [
        ("mask", pb.PICTURE_FORMAT_GRAY8, (224, 224)),
        ("alpha", pb.PICTURE_FORMAT_GRAY8, (360, 640)),
        ("cutout", pb.PICTURE_FORMAT_RGBA32, (360, 640, 4)),
        ("color", pb.PICTURE_FORMAT_RGB24, (360, 640, 3)),
        ("blur", pb.PICTURE_FORMAT_RGB24, (360, 640, 3)),
        ("image", pb.PICTURE_FORMAT_RGB24, (360, 640, 3)),
    ],
)
async def test_every_mode_answers_in_its_default_format(
    client: Client, shown: Clip, mode: str, layout: int, shape: tuple[int, ...]
) -> None:
    reply = await client.segment(rgb24(shown.frames[0]), mode=mode, background_name="office")
    assert reply.picture.format == layout
    assert reply.array.shape == shape


@pytest.mark.parametrize("mode", ["mask", "alpha", "cutout", "color"])
async def test_results_can_be_asked_for_as_png(client: Client, shown: Clip, mode: str) -> None:
    reply = await client.segment(jpeg(shown.frames[0]), mode=mode, format=pb.PICTURE_FORMAT_PNG)
    decoded = cv2.imdecode(reply.array, cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    assert decoded.ndim == (2 if mode in ("mask", "alpha") else 3)
    assert decoded.shape[:2] == ((224, 224) if mode == "mask" else (360, 640))


async def test_frames_come_back_in_the_format_they_came_in(client: Client, shown: Clip) -> None:
    picture = await client.segment(jpeg(shown.frames[0]), mode="blur")
    assert picture.picture.format == pb.PICTURE_FORMAT_JPEG
    planes = await client.segment(i420(shown.frames[0]), mode="blur")
    assert planes.picture.format == pb.PICTURE_FORMAT_I420
    assert len(planes.picture.data) == 640 * 360 * 3 // 2


async def test_the_output_changes_for_the_frames_that_follow(client: Client, shown: Clip) -> None:
    async with client.open_stream(mode="mask", every_frame=True) as stream:
        await stream.send(rgb24(shown.frames[0]), 0)
        await stream.change({"mode": "color", "color": "#ff0000"})
        await stream.send(rgb24(shown.frames[0]), 1)
        await stream.change({"mode": "image", "background_picture": cv2.imencode(".png", room(32, 32))[1].tobytes()})
        await stream.send(rgb24(shown.frames[0]), 2)
        await stream.finish()
        replies = [reply async for reply in stream]
    mask, red, picture = (reply.array for reply in replies)
    assert mask.shape == (224, 224)
    outside = shown.masks[0] == 0
    outside[:, 100:540] = False  # well away from the person
    assert np.abs(red[outside].astype(int) - [255, 0, 0]).mean() < 5
    assert np.abs(picture[outside].astype(int) - red[outside]).mean() > 50


async def test_resetting_the_prior_makes_a_first_frame_again(client: Client, shown: Clip) -> None:
    async with client.open_stream(every_frame=True) as stream:
        masks = []
        for i in range(3):
            if i == 2:
                await stream.change(reset_prior=True)
            await stream.send(i420(shown.frames[0]), i)
            reply = await stream.receive()
            assert reply is not None
            masks.append(reply.array)
    assert not np.array_equal(masks[0], masks[1])
    assert np.array_equal(masks[0], masks[2])


async def test_a_slow_network_keeps_only_the_newest_frame_and_says_what_it_dropped(shown: Clip) -> None:
    gate = Gate()
    async with fake_service(FakeModel(gate)) as (client, sessions), client.open_stream() as stream:
        await stream.send(i420(shown.frames[0]), 0)
        await asyncio.to_thread(gate.entered.acquire)
        for i in range(1, 10):
            await stream.send(i420(shown.frames[i]), i)
        await stream.finish()
        session = sessions[stream.info.session_id]
        gate.let_through.release()
        first = await stream.receive()
        await asyncio.to_thread(gate.entered.acquire)
        # The reader may still be emptying the wire: let it, then count.
        gate.let_through.release(10)
        rest = [reply async for reply in stream]
    assert first is not None
    ids = [first.id, *(reply.id for reply in rest)]
    assert ids == sorted(set(ids))
    assert ids[-1] == 9
    assert sum(reply.dropped for reply in rest) == 10 - len(ids)
    assert session.numbers.dropped == 10 - len(ids)


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


BAD_PICTURES = {
    "no picture": (Picture.jpeg(b"hello"), "5 bytes that are no picture"),
    "cut short": (Picture.jpeg(jpeg(room(320, 240)).message.data[:4000]), "damaged or cut short after 4000 bytes"),
    "nothing": (Picture(pb.Picture()), "format: 0 was sent; expected JPEG"),
    "without pixels": (Picture.i420(b"", 0, 0), "the size is 0x0; expected at least 1x1"),
    "wrong byte count": (Picture.i420(bytes(100), 64, 48), "100 bytes for 64x48 I420; expected 4608"),
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


@pytest.mark.parametrize("size", [(641, 361), (1, 1), (33, 2)])
async def test_odd_sizes_work(client: Client, size: tuple[int, int]) -> None:
    reply = await client.segment(jpeg(room(*size)), mode="cutout")
    assert reply.array.shape == (size[1], size[0], 4)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"mode": "sepia"}, "unknown mode 'sepia'; expected one of"),
        ({"mode": "color", "color": "green"}, "'green' is no colour; expected #rrggbb"),
        ({"mode": "image"}, "mode image was asked for without one"),
        ({"mode": "image", "background_name": "moon"}, "unknown background 'moon'; expected one of"),
        ({"mode": "image", "background_picture": b"x"}, "1 bytes that are no picture"),
        ({"mode": "blur", "format": pb.PICTURE_FORMAT_GRAY8}, "only mask and alpha are grey"),
        ({"mode": "blur", "format": pb.PICTURE_FORMAT_RGBA32}, "only cutout has an alpha"),
        ({"mode": "blur", "format": 99}, "unknown format 99; expected one of"),
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
    assert "the first message is frame; expected config" in error.message


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([pb.SegmentStreamRequest(config=pb.StreamConfig(delivery=9))], "unknown delivery 9"),  # type: ignore[arg-type]
        ([pb.SegmentStreamRequest()], "the first message is empty; expected config"),
        ([], "the first message is empty; expected config"),
        ([pb.SegmentStreamRequest(config=pb.StreamConfig())] * 2, "config after the first; expected frame or control"),
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


async def test_a_message_over_the_limit_is_refused(client: Client) -> None:
    with pytest.raises(ClientError, match="RESOURCE_EXHAUSTED"):
        await client.segment(Picture.jpeg(bytes(64 * 2**20)))


async def test_one_stream_more_than_the_limit_is_told_when_to_try_again(shown: Clip) -> None:
    async with fake_service(FakeModel(Gate()), limit=1) as (client, sessions):
        async with client.open_stream():
            with pytest.raises(ClientError, match="1 of 1 sessions are open") as refused:
                async with client.open_stream():
                    pass
        assert (refused.value.code, refused.value.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_SESSIONS")
        assert refused.value.retry_after == 5.0
        assert await sessions.drain(10) == 0


async def test_a_client_that_vanishes_leaves_no_session(service: Running, shown: Clip) -> None:
    async with Client(f"127.0.0.1:{service.grpc_port}") as vanishing, vanishing.open_stream() as stream:
        await stream.send(jpeg(shown.frames[0]), 1)
        assert len(service.sessions) == 1
    assert await service.sessions.drain(10) == 0


async def test_a_drained_stream_ends_with_unavailable(service: Running, client: Client) -> None:
    async with client.open_stream() as stream:
        assert await service.sessions.drain(0) == 1
        with pytest.raises(ClientError, match="the service stops") as ended:
            await stream.receive()
    assert (ended.value.code, ended.value.reason) == ("UNAVAILABLE", "DRAINING")


async def test_models_are_listed(client: Client) -> None:
    models = await client.models()
    default = next(model for model in models if model.default)
    assert (default.name, default.width, default.height, default.stateful) == ("portrait", 224, 224, True)


async def test_health_and_reflection_answer(service: Running) -> None:
    target = f"127.0.0.1:{service.grpc_port}"
    async with grpc.aio.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

    def reflected() -> Any:
        with grpc.insecure_channel(target) as channel:
            return ProtoReflectionDescriptorDatabase(channel).get_services()

    assert SERVICE in await asyncio.to_thread(reflected)
