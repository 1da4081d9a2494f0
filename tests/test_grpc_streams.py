"""gRPC streams: layouts, what is in force, and controls."""

import asyncio

import cv2
import numpy as np
import pytest

from portrait.client import Client, ClientError, Picture, Reply
from portrait.core.compositors import Options
from portrait.image.frame import Frame, Mask
from portrait.server.app import RunningService
from portrait.transports.grpc.service import MAX_IN_FLIGHT
from portrait.v1 import segmentation_pb2 as pb
from tests.calls import client, fake_service, i420, jpeg, received, rgb24, shown
from tests.embedded import FINE
from tests.fakes import FakeModel, Gate
from tests.people import Array, Clip, clip, room

__all__ = ["client", "shown"]  # fixtures


GREYS = ["GRAY8", "GRAY1", "GRAY8_ZLIB", "PNG"]


def pixels(reply: Reply) -> Array:
    if reply.picture.format == pb.PICTURE_FORMAT_PNG:
        return np.asarray(cv2.imdecode(reply.array, cv2.IMREAD_UNCHANGED), np.uint8)
    return reply.array


@pytest.mark.parametrize("size", [(FINE, FINE), (641, 361)])
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
        assert (reply.picture.width, reply.picture.height) == ((FINE, FINE) if mask_size == "MODEL" else size)
    assert 0 < np.count_nonzero(found["GRAY8"]) < found["GRAY8"].size
    assert np.array_equal(found["GRAY8"], found["PNG"])
    assert np.array_equal(found["GRAY8"], found["GRAY8_ZLIB"])
    assert np.array_equal(np.where(found["GRAY8"] > 127, 255, 0), found["GRAY1"])


async def test_edges_and_framing_change_while_a_stream_runs_and_what_is_in_force_is_told(
    client: Client, shown: Clip
) -> None:
    frame = jpeg(shown.frames[0])
    async with client.open_stream(mode="alpha", threshold=0.3, feather=0.2, every_frame=True) as stream:
        output = stream.info.output
        assert (output.threshold, output.feather, output.framing) == (pytest.approx(0.3), pytest.approx(0.2), False)
        sizes = []
        for change in (None, {"threshold": 0.5}, {"threshold": 0.7, "feather": 0.2}):
            if change is not None:
                await stream.change({"mode": "alpha", **change})
            await stream.send(frame, 0)
            reply = await stream.receive()
            assert reply is not None
            sizes.append(int((reply.array > 127).sum()))
        assert sizes[0] > sizes[1] > sizes[2]
    with pytest.raises(ClientError, match=r"feather: got 0.4, expected 0.02 to 0.2 at this threshold"):
        await client.segment(frame, mode="alpha", threshold=0.8, feather=0.4)


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


async def test_pixels_at_the_models_size_are_a_frame_like_any_other(client: Client) -> None:
    still = room(FINE, FINE)
    reply = await client.segment(rgb24(still))
    assert reply.array.shape == (FINE, FINE)
    same = await client.segment(np.ascontiguousarray(still[..., ::-1]))
    assert same.array.tobytes() == reply.array.tobytes()


async def test_a_changed_mode_from_outside_falls_back_to_the_frames_layout(
    service: RunningService, client: Client
) -> None:
    async with client.open_stream(format=pb.PICTURE_FORMAT_GRAY8, every_frame=True) as stream:
        service.sessions[stream.info.session_id].change(Options("blur"))
        await stream.send(Picture.jpeg(jpeg(room(64, 64)).message.data), 1)
        assert (await received(stream)).picture.format == pb.PICTURE_FORMAT_JPEG
