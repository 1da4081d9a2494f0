"""Pictures and clients of gRPC tests, and a service around a fake network."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from portrait.admission.pixel_budget import PixelBudget
from portrait.client import Client, Picture, Reply
from portrait.image.backgrounds import Backgrounds
from portrait.metrics import Metrics
from portrait.server.app import RunningService
from portrait.sessions.registry import Sessions
from portrait.transports.grpc.config import GrpcConfig
from portrait.transports.grpc.server import GrpcServer
from tests.fakes import FakeModel, only
from tests.people import Array, Clip, clip

SIZE = (640, 360)

TRITON = Path(__file__).parents[1] / ".venv-tritonclient" / "bin" / "python"
"""The interpreter that has a client of KServe's which is not ours."""

needs_tritonclient = pytest.mark.skipif(
    not TRITON.exists(), reason="tritonclient is not installed: run make .venv-tritonclient/ready"
)


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
async def client(service: RunningService) -> AsyncIterator[Client]:
    async with Client(f"127.0.0.1:{service.grpc_port}") as opened:
        yield opened


def budget_of(pixels: int, wait_seconds: float = 10.0) -> PixelBudget:
    """A budget for pictures of tests."""
    return PixelBudget(pixels, wait_seconds)


@asynccontextmanager
async def fake_service(
    model: FakeModel, limit: int = 4, idle_seconds: float = 60.0
) -> AsyncIterator[tuple[Client, Sessions]]:
    """A real server around a fake network."""
    config = GrpcConfig("127.0.0.1", 0, 10**6, 10**6, 4 * 10**6, idle_seconds)
    async with (
        Sessions(only(model), limit, Metrics()) as sessions,
        budget_of(10**6, wait_seconds=60.0) as budget,
        GrpcServer(config, sessions, Backgrounds(), budget) as server,
        Client(f"127.0.0.1:{server.port}") as opened,
    ):
        yield opened, sessions


@pytest.fixture(scope="module")
def shown() -> Clip:
    return clip(*SIZE, 24)


async def received(stream: Any) -> Reply:
    reply = await stream.receive()
    assert reply is not None
    return reply
