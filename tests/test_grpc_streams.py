"""gRPC streams: layouts, controls, priors carried elsewhere, slow networks, and every way a stream ends."""

import asyncio
import zlib
from typing import Any

import cv2
import grpc.aio
import numpy as np
import pytest

from portrait.app import Running
from portrait.client import Client, ClientError, Picture, Reply
from portrait.client.values import decode
from portrait.compositors import Options
from portrait.frame import Frame
from portrait.mask import Mask
from portrait.transports.grpc.servicer import MAX_IN_FLIGHT
from portrait.v1 import segmentation_pb2 as pb
from tests.embedded import SIDE
from tests.fakes import FakeModel, Gate, full_mask
from tests.people import Array, Clip, clip, room
from tests.test_grpc import client, fake_service, i420, jpeg, pictures, rgb24, shown

__all__ = ["client", "shown"]  # fixtures

GREYS = ["GRAY8", "GRAY1", "GRAY8_ZLIB", "PNG"]


def pixels(reply: Reply) -> Array:
    if reply.picture.format == pb.PICTURE_FORMAT_PNG:
        return np.asarray(cv2.imdecode(reply.array, cv2.IMREAD_UNCHANGED), np.uint8)
    return reply.array


async def received(stream: Any) -> Reply:
    reply = await stream.receive()
    assert reply is not None
    return reply


@pytest.mark.parametrize("size", [(SIDE, SIDE), (641, 361)])
@pytest.mark.parametrize("mode", ["mask", "alpha"])
@pytest.mark.parametrize("mask_size", ["MODEL", "FRAME"])
async def test_every_grey_layout_holds_the_same_mask(
    client: Client, mode: str, mask_size: str, size: tuple[int, int]
) -> None:
    frame = jpeg(clip(*size, 1).frames[0])
    found = {}
    for layout in GREYS:
        reply = await client.segment(
            frame,
            mode=mode,
            format=pb.PictureFormat.Value(f"PICTURE_FORMAT_{layout}"),
            mask_size=pb.MaskSize.Value(f"MASK_SIZE_{mask_size}"),
        )
        found[layout] = pixels(reply)
        assert (reply.picture.width, reply.picture.height) == ((SIDE, SIDE) if mask_size == "MODEL" else size)
    assert 0 < np.count_nonzero(found["GRAY8"]) < found["GRAY8"].size
    assert np.array_equal(found["GRAY8"], found["PNG"])
    assert np.array_equal(found["GRAY8"], found["GRAY8_ZLIB"])
    assert np.array_equal(np.where(found["GRAY8"] > 127, 255, 0), found["GRAY1"])


async def test_one_bit_masks_are_an_eighth_and_padded_by_rows(client: Client, shown: Clip) -> None:
    small = np.asarray(cv2.resize(shown.frames[0], (33, 20)), np.uint8)
    reply = await client.segment(jpeg(small), mode="mask", format=pb.PICTURE_FORMAT_GRAY1, mask_size=pb.MASK_SIZE_FRAME)
    assert len(reply.picture.data) == 5 * 20


async def test_the_answer_to_the_configuration_says_what_is_in_force(client: Client) -> None:
    async with client.open_stream() as live, client.open_stream(mode="color", every_frame=True) as exact:
        assert live.info.delivery == pb.DELIVERY_NEWEST
        assert exact.info.delivery == pb.DELIVERY_EVERY_FRAME
        assert live.info.output.mode == "mask"
        assert (exact.info.output.mode, exact.info.output.color) == ("color", "#00b140")
        assert live.info.max_in_flight == MAX_IN_FLIGHT
        assert live.info.max_message_bytes >= 3 * live.info.max_pixels
        assert live.info.idle_timeout.ToSeconds() == 5
        assert not live.info.resumed


async def test_controls_hold_for_the_frames_after_them_and_for_none_before() -> None:
    gate, resets = Gate(), []

    def noting(frame: Frame) -> Mask:
        resets.append(model.resets)
        return gate(frame)

    model = FakeModel(noting)
    frame = i420(room(64, 48))  # so small that none is held up on the way
    async with fake_service(model) as (client, _), client.open_stream(every_frame=True) as stream:
        for i in range(3):  # one at work, one in the slot, one read
            await stream.send(frame, i)
        await stream.change({"mode": "alpha"}, reset_prior=True)
        await stream.send(frame, 3)
        await stream.finish()
        gate.let_through.release(4)
        sizes = [reply.array.shape async for reply in stream]
    assert sizes == [(32, 32)] * 3 + [(48, 64)]
    assert resets == [0, 0, 0, 1]


async def test_a_control_before_a_frame_that_is_given_up_holds_for_the_newer_one() -> None:
    gate = Gate()
    model = FakeModel(gate)
    frame = i420(room(64, 48))
    async with fake_service(model) as (client, _), client.open_stream() as stream:
        await stream.send(frame, 0)
        await asyncio.to_thread(gate.entered.acquire)
        await stream.change({"mode": "alpha"}, reset_prior=True, send_prior=True)
        for i in range(1, 20):
            await stream.send(frame, i)
        await stream.finish()
        gate.let_through.release(20)
        replies = [reply async for reply in stream]
    assert [reply.prior is not None for reply in replies].index(True) == 1
    assert sum(reply.prior is not None for reply in replies) == 1
    assert all(reply.picture.width == 64 for reply in replies[1:])
    assert model.resets == 1


async def test_drops_come_with_their_reason(shown: Clip) -> None:
    gate = Gate()
    async with fake_service(FakeModel(gate)) as (client, sessions):
        async with client.open_stream() as stream:
            session = sessions[stream.info.session_id]
            await stream.send(i420(shown.frames[0]), 0)
            await asyncio.to_thread(gate.entered.acquire)
            call = stream._call
            for i in range(1, 4):
                await stream.send(i420(shown.frames[i]), i)
            await stream.finish()
            gate.let_through.release(4)
            results = [message.result async for message in messages(call)]
        assert sum(result.dropped for result in results) == session.numbers.dropped
        for result in results:
            assert (result.drop_reason == pb.DROP_REASON_NEWER_FRAME) == (result.dropped > 0)


async def messages(call: Any) -> Any:
    while (message := await call.read()) is not grpc.aio.EOF:
        yield message


async def test_a_stream_that_goes_on_elsewhere_makes_no_jump(client: Client, shown: Clip) -> None:
    whole = [reply.array async for reply in client.stream(pictures(shown.frames, i420), every_frame=True)]
    half = len(shown.frames) // 2
    async with client.open_stream(every_frame=True) as stream:
        for i, frame in enumerate(shown.frames[:half]):
            if i == half - 1:
                await stream.change(send_prior=True)
            await stream.send(i420(frame), i)
            reply = await received(stream)
            assert (reply.prior is not None) == (i == half - 1)
    assert reply.prior is not None
    async with client.open_stream(every_frame=True, prior=reply.prior) as stream:
        assert stream.info.resumed
        after = []
        for i, frame in enumerate(shown.frames[half:]):
            await stream.send(i420(frame), i)
            after.append((await received(stream)).array)
    cold = (await client.segment(i420(shown.frames[half]))).array
    # The prior is rounded to 8 bits on the way: a level here and there, where a cold start changes whole regions.
    assert np.abs(after[0].astype(int) - whole[half]).mean() < 0.2
    assert np.abs(after[0].astype(int) - whole[half]).max() < 16
    assert np.abs(cold.astype(int) - whole[half]).max() > 16
    for resumed, uninterrupted in zip(after, whole[half:], strict=True):
        assert np.mean((resumed > 127) != (uninterrupted > 127)) < 0.002


async def test_priors_come_as_often_as_asked(client: Client, shown: Clip) -> None:
    async with client.open_stream(every_frame=True, prior_every=3, mode="blur") as stream:
        carried = []
        for i in range(7):
            await stream.send(jpeg(shown.frames[i]), i)
            reply = await received(stream)
            carried.append(reply.prior is not None)
            if reply.prior_picture is not None:
                assert reply.prior_picture.format == pb.PICTURE_FORMAT_GRAY8_ZLIB
                assert decode(reply.prior_picture).shape == (SIDE, SIDE)
    assert carried == [False, False, True] * 2 + [False]


async def test_a_prior_reaches_the_network_and_no_prior_comes_of_a_failure() -> None:
    model = FakeModel(full_mask)
    prior = np.arange(32 * 32, dtype=np.uint8).reshape(32, 32)
    async with fake_service(model) as (client, _), client.open_stream(prior=prior):
        assert [np.array_equal(mask.values, prior) for mask in model.priors] == [True]

    def crash(_: Any) -> Mask:
        raise ZeroDivisionError

    async with fake_service(FakeModel(crash)) as (client, _), client.open_stream(prior_every=1) as stream:
        await stream.send(jpeg(room(64, 64)), 1)
        reply = await received(stream)
        assert reply.prior is None
        assert reply.error is not None
        assert (reply.error.code, reply.error.reason) == ("INTERNAL", "INTERNAL")


def prior_message(layout: Any, data: bytes, size: int = SIDE) -> pb.Picture:
    return pb.Picture(format=layout, width=size, height=size, data=data)


BAD_PRIORS = {
    "another size": (
        prior_message(pb.PICTURE_FORMAT_GRAY8, bytes(9), 3),
        "the size is 3x3; expected the model's",
    ),
    "too few bytes": (
        prior_message(pb.PICTURE_FORMAT_GRAY8, bytes(9)),
        f"9 bytes for {SIDE}x{SIDE} GRAY8; expected {SIDE**2}",
    ),
    "no zlib": (prior_message(pb.PICTURE_FORMAT_GRAY8_ZLIB, b"hello"), "no zlib stream"),
    "a bomb": (
        prior_message(pb.PICTURE_FORMAT_GRAY8_ZLIB, zlib.compress(bytes(10**7))),
        f"{SIDE**2 + 1} bytes for {SIDE}x{SIDE}",
    ),
    "a photograph": (jpeg(room(SIDE, SIDE)).message, "the size is 0x0"),
    "another layout": (prior_message(pb.PICTURE_FORMAT_PNG, b""), "format 6 was sent; expected GRAY8 (4)"),
    "huge": (prior_message(pb.PICTURE_FORMAT_GRAY8, b"", 2**16), "expected at most 2088960"),
}


@pytest.mark.parametrize("name", BAD_PRIORS)
async def test_a_bad_prior_is_refused_saying_why(client: Client, service: Running, name: str) -> None:
    prior, message = BAD_PRIORS[name]
    with pytest.raises(ClientError) as refused:
        async with client.open_stream(prior=prior):
            pass
    assert message in refused.value.message
    assert refused.value.code == "INVALID_ARGUMENT"
    assert await service.sessions.drain(10) == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (pb.StreamConfig(prior_every=2_000_000), "2000000 came; expected 0 to 1000000"),
        (pb.StreamConfig(output=pb.Output(mask_size=7)), "unknown size 7"),  # type: ignore[arg-type]
        (
            pb.StreamConfig(output=pb.Output(mode="blur", format=pb.PICTURE_FORMAT_GRAY1)),
            "GRAY1 was asked for with mode",
        ),
    ],
)
async def test_a_bad_configuration_is_refused(client: Client, config: pb.StreamConfig, message: str) -> None:
    call = client._stub.SegmentStream()
    await call.write(pb.SegmentStreamRequest(config=config))
    with pytest.raises(grpc.aio.AioRpcError, match=message):
        await call.read()


async def test_a_stream_says_goaway_goes_on_and_is_cut_at_the_deadline(service: Running, shown: Clip) -> None:
    async with Client(f"127.0.0.1:{service.grpc_port}") as client, client.open_stream(every_frame=True) as stream:
        await stream.send(jpeg(shown.frames[0]), 0)
        await received(stream)
        draining = asyncio.create_task(service.sessions.drain(1.0))
        first = await stream._call.read()
        assert 0 < first.goaway.time_left.ToMilliseconds() <= 1000
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


async def test_a_stream_that_never_sends_a_frame_ends(shown: Clip) -> None:
    async with fake_service(FakeModel(full_mask), idle_seconds=0.3) as (client, sessions):
        async with client.open_stream() as stream:
            await stream.change(reset_prior=True)  # a control is no frame
            with pytest.raises(ClientError, match=r"no frame for 0\.3 s") as ended:
                await stream.receive()
            assert (ended.value.code, ended.value.reason) == ("DEADLINE_EXCEEDED", "IDLE")
        call = client._stub.SegmentStream()
        with pytest.raises(grpc.aio.AioRpcError, match=r"no message for 0\.3 s; expected config"):
            await call.read()
        assert await sessions.drain(10) == 0


async def test_a_sender_that_is_slowed_down_is_not_idle() -> None:
    gate = Gate()
    async with (
        fake_service(FakeModel(gate), idle_seconds=0.3) as (client, _),
        client.open_stream(every_frame=True) as stream,
    ):
        for i in range(4):
            await stream.send(i420(room(64, 48)), i)
        await asyncio.sleep(0.6)  # twice the limit, with frames waiting all along
        await stream.finish()
        gate.let_through.release(4)
        assert [reply.id async for reply in stream] == [0, 1, 2, 3]


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


async def test_hundreds_of_streams_that_come_and_go_leave_nothing(shown: Clip) -> None:
    model = FakeModel(full_mask)
    frame = i420(np.asarray(cv2.resize(shown.frames[0], (64, 48)), np.uint8))
    async with fake_service(model, limit=50) as (client, sessions):
        before = {task for task in asyncio.all_tasks() if task.get_name().startswith("grpc-")}

        async def come_and_go(number: int) -> None:
            call = client._stub.SegmentStream()
            await call.write(pb.SegmentStreamRequest(config=pb.StreamConfig()))
            for i in range(number % 4):
                await call.write(pb.SegmentStreamRequest(frame=pb.Frame(id=i, picture=frame.message)))
            if number % 3:
                await call.read()
            call.cancel()

        for start in range(0, 400, 25):
            await asyncio.gather(*(come_and_go(start + i) for i in range(25)))
        assert await sessions.drain(30) == 0
        assert model.open_count == 0
        while {task for task in asyncio.all_tasks() if task.get_name().startswith("grpc-")} - before:
            await asyncio.sleep(0.01)


async def test_pixels_at_the_models_size_are_a_frame_like_any_other(client: Client) -> None:
    still = room(SIDE, SIDE)
    reply = await client.segment(rgb24(still))
    assert reply.array.shape == (SIDE, SIDE)
    same = await client.segment(np.ascontiguousarray(still[..., ::-1]))
    assert same.array.tobytes() == reply.array.tobytes()


async def test_a_changed_mode_from_outside_falls_back_to_the_frames_layout(service: Running, client: Client) -> None:
    async with client.open_stream(format=pb.PICTURE_FORMAT_GRAY8, every_frame=True) as stream:
        service.sessions[stream.info.session_id].change(Options("blur"))
        await stream.send(Picture.jpeg(jpeg(room(64, 64)).message.data), 1)
        assert (await received(stream)).picture.format == pb.PICTURE_FORMAT_JPEG
