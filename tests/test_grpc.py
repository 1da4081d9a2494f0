"""gRPC: a real server and real clients over loopback: what comes back for what was sent."""

import asyncio
from typing import Any

import cv2
import grpc
import grpc.aio
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from portrait.client import Client
from portrait.server.app import RunningService
from portrait.transports.grpc.server import SERVICE
from portrait.v1 import segmentation_pb2 as pb
from tests.calls import SIZE, client, i420, jpeg, pictures, rgb24, shown
from tests.embedded import FINE, SIDE
from tests.people import Clip, iou, room

__all__ = ["client", "shown"]  # fixtures


@pytest.mark.parametrize("encode", [jpeg, i420, rgb24])
async def test_a_stream_gives_every_frame_its_own_good_mask(client: Client, shown: Clip, encode: Any) -> None:
    replies = [reply async for reply in client.stream(pictures(shown.frames, encode), every_frame=True)]
    assert [reply.id for reply in replies] == list(range(24))
    assert all(reply.dropped == 0 and reply.error is None for reply in replies)
    overlaps = []
    for reply, truth in zip(replies, shown.masks, strict=True):
        assert reply.array.shape == (SIDE, SIDE)
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


@pytest.mark.parametrize(
    ("mode", "layout", "shape"),
    [
        ("mask", pb.PICTURE_FORMAT_GRAY8, (FINE, FINE)),
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
    assert decoded.shape[:2] == ((FINE, FINE) if mode == "mask" else (360, 640))


@pytest.mark.parametrize(("mode", "channels"), [("cutout", 4), ("color", 3), ("mask", 3)])
async def test_results_can_be_asked_for_as_webp_in_far_fewer_bytes(
    client: Client, shown: Clip, mode: str, channels: int
) -> None:
    files = {}
    for layout in (pb.PICTURE_FORMAT_PNG, pb.PICTURE_FORMAT_WEBP):
        reply = await client.segment(jpeg(shown.frames[0]), mode=mode, format=layout)
        assert reply.picture.format == layout
        files[layout] = reply.picture.data
    webp = files[pb.PICTURE_FORMAT_WEBP]
    assert webp[:4] + webp[8:12] == b"RIFFWEBP"
    decoded = cv2.imdecode(np.frombuffer(webp, np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    assert decoded.shape[2] == channels
    if mode == "cutout":
        whole = cv2.imdecode(np.frombuffer(files[pb.PICTURE_FORMAT_PNG], np.uint8), cv2.IMREAD_UNCHANGED)
        assert whole is not None
        assert np.array_equal(decoded[..., 3], whole[..., 3])
        # A lossy file smears what is visible into the block beside it, and nothing further.
        beside = cv2.dilate(decoded[..., 3], np.ones((33, 33), np.uint8)) > 0
        assert decoded[~beside].max(initial=0) < 4
        assert len(webp) < len(files[pb.PICTURE_FORMAT_PNG]) / 4


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
    assert mask.shape == (SIDE, SIDE)
    outside = shown.masks[0] == 0
    outside[:, 100:540] = False  # well away from the person
    assert np.abs(red[outside].astype(int) - [255, 0, 0]).mean() < 5
    assert np.abs(picture[outside].astype(int) - red[outside]).mean() > 50


@pytest.mark.parametrize("size", [(641, 361), (1, 1), (33, 2)])
async def test_odd_sizes_work(client: Client, size: tuple[int, int]) -> None:
    reply = await client.segment(jpeg(room(*size)), mode="cutout")
    assert reply.array.shape == (size[1], size[0], 4)


async def test_models_are_listed(client: Client) -> None:
    models = await client.models()
    default = next(model for model in models if model.default)
    assert (default.name, default.width, default.height, default.stateful) == ("portrait", SIDE, SIDE, True)


async def test_health_and_reflection_answer(service: RunningService) -> None:
    target = f"127.0.0.1:{service.grpc_port}"
    async with grpc.aio.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

    def reflected() -> dict[str, list[str]]:
        with grpc.insecure_channel(target) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            pool = DescriptorPool(database)
            return {name: [*pool.FindServiceByName(name).methods_by_name] for name in database.get_services()}

    told = await asyncio.to_thread(reflected)
    assert told[SERVICE] == ["Segment", "SegmentStream", "Watch", "ListModels"]
    assert "ModelInfer" in told["inference.GRPCInferenceService"]
    assert len(told) == 4
