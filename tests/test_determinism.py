"""The same frames give the same masks, bit for bit: alone, beside others, in another process."""

import asyncio
from asyncio import timeout
from contextlib import aclosing
from fractions import Fraction

import cv2
import numpy as np
import pytest

from portrait.client import Client, Picture
from portrait.core.compositors import Options, open_compositor
from portrait.core.pipeline import Pipeline
from portrait.core.segmenters import Model
from portrait.image.convert import frame_from_i420
from portrait.image.frame import Timestamp
from portrait.metrics import Metrics
from portrait.server.app import RunningService
from portrait.settings import Settings
from tests.boxes import serving
from tests.people import Array, clip

SIZE = (320, 240)
FRAMES = 40
NEIGHBOURS = 7


def packed(picture: Array) -> bytes:
    return cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420).tobytes()


@pytest.fixture(scope="module")
def frames() -> list[bytes]:
    """Packed I420, with noise as cameras have it."""
    noise = np.random.default_rng(3)
    pictures = [picture + noise.normal(0, 3, picture.shape) for picture in clip(*SIZE, FRAMES).frames]
    return [packed(np.clip(picture, 0, 255).astype(np.uint8)) for picture in pictures]


@pytest.fixture(scope="module")
def alone(model: Model, frames: list[bytes]) -> list[bytes]:
    """What the core says, with nothing around it."""
    pipeline = Pipeline(model.open(), (model.width, model.height), Metrics())
    options = Options("mask")
    masks = []
    for number, data in enumerate(frames):
        frame = frame_from_i420(data, *SIZE, Timestamp(0, Fraction(1)), number / 30)
        masks.append(pipeline.run(frame, options, open_compositor(options)).mask.values.tobytes())
    pipeline.close()
    assert len(set(masks)) > FRAMES / 2
    return masks


async def masks_of(client: Client, frames: list[bytes]) -> list[bytes]:
    """What a stream of the service says."""
    pictures = [Picture.i420(data, *SIZE) for data in frames]
    async with aclosing(client.stream(pictures, every_frame=True, mode="mask", reconnect_seconds=0)) as replies:
        return [reply.picture.data async for reply in replies]


@pytest.fixture
def settings() -> Settings:
    return Settings(http_port=0, grpc_port=0, max_sessions=NEIGHBOURS + 1, drain_seconds=0.0, quality_steps=4)


async def test_a_stream_says_what_the_core_says(
    service: RunningService, frames: list[bytes], alone: list[bytes]
) -> None:
    async with Client(f"127.0.0.1:{service.grpc_port}") as client:
        assert await masks_of(client, frames) == alone
        assert await masks_of(client, frames) == alone


async def test_seven_neighbours_under_load_change_no_bit(
    service: RunningService, frames: list[bytes], alone: list[bytes]
) -> None:
    """Of other people, sizes and modes, as fast as they are answered."""
    done = asyncio.Event()
    answered = [0] * NEIGHBOURS

    async def work(number: int) -> None:
        pictures = clip(160 + 32 * number, 120 + 24 * number, 8, number).frames
        mode = ("blur", "color", "mask", "alpha", "cutout")[number % 5]
        async with client.open_stream(every_frame=True, mode=mode) as stream:
            while not done.is_set():
                await stream.send(np.asarray(pictures[answered[number] % len(pictures)][..., ::-1], np.uint8), 1)
                assert await stream.receive() is not None
                answered[number] += 1

    async with Client(f"127.0.0.1:{service.grpc_port}") as client:
        neighbours = [asyncio.create_task(work(number)) for number in range(NEIGHBOURS)]
        try:
            async with timeout(60):
                while min(answered) < 2:
                    await asyncio.sleep(0.01)
            before = list(answered)
            assert await masks_of(client, frames) == alone
        finally:
            done.set()
            await asyncio.gather(*neighbours)
        assert all(after > was for after, was in zip(answered, before, strict=True))


async def test_another_process_says_the_same(frames: list[bytes], alone: list[bytes]) -> None:
    with serving("--workers", "2") as (_, told):
        async with Client(told["grpc"]) as client:
            both = await asyncio.gather(masks_of(client, frames), masks_of(client, frames))
    assert both == [alone, alone]
