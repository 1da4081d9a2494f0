"""gRPC streams and their priors: each its own, forgotten on request, carried to another stream."""

import zlib
from typing import Any

import numpy as np
import pytest

from portrait.client import Client, ClientError
from portrait.image.frame import Mask
from portrait.server.app import RunningService
from portrait.v1 import segmentation_pb2 as pb
from portrait_client.types import decode
from tests.calls import SIZE, client, fake_service, i420, jpeg, pictures, received, shown
from tests.embedded import SIDE
from tests.fakes import FakeModel, full_mask
from tests.people import Clip, clip, room

__all__ = ["client", "shown"]  # fixtures


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
            assert reply.error is None
            assert np.array_equal(reply.array, alone[i])


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
    cold = (await client.segment(i420(shown.frames[half]), model="portrait")).array
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
        "got 3x3, expected the model's",
    ),
    "too few bytes": (
        prior_message(pb.PICTURE_FORMAT_GRAY8, bytes(9)),
        f"9 bytes for {SIDE}x{SIDE} GRAY8, expected {SIDE**2}",
    ),
    "no zlib": (prior_message(pb.PICTURE_FORMAT_GRAY8_ZLIB, b"hello"), "not a zlib stream"),
    "a bomb": (
        prior_message(pb.PICTURE_FORMAT_GRAY8_ZLIB, zlib.compress(bytes(10**7))),
        f"{SIDE**2 + 1} bytes for {SIDE}x{SIDE}",
    ),
    "a photograph": (jpeg(room(SIDE, SIDE)).message, "got 0x0"),
    "another layout": (prior_message(pb.PICTURE_FORMAT_PNG, b""), "got format 6, expected GRAY8 (4)"),
    "huge": (prior_message(pb.PICTURE_FORMAT_GRAY8, b"", 2**16), "expected at most 2088960"),
}


@pytest.mark.parametrize("name", BAD_PRIORS)
async def test_a_bad_prior_is_refused_saying_why(client: Client, service: RunningService, name: str) -> None:
    prior, message = BAD_PRIORS[name]
    with pytest.raises(ClientError) as refused:
        async with client.open_stream(prior=prior):
            pass
    assert message in refused.value.message
    assert refused.value.code == "INVALID_ARGUMENT"
    assert await service.sessions.drain(60) == 0
