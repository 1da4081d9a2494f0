"""The camera's side of a connection: its newest frame, and the watch over it."""

import asyncio
import time
from typing import TypeAlias

import av
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from portrait.latest import Closed, Latest

Arrival: TypeAlias = tuple[av.VideoFrame, float]
"""A decoded picture and when it came, on the monotonic clock."""


async def pump(camera: MediaStreamTrack, connected: asyncio.Event, slot: Latest[Arrival], idle_seconds: float) -> str:
    """Empty a track into the slot as fast as it fills, for aiortc queues without bound; why it ended."""
    try:
        await connected.wait()
        while True:
            async with asyncio.timeout(idle_seconds):
                picture = await camera.recv()
            assert isinstance(picture, av.VideoFrame)
            slot.put((picture, time.monotonic()))
    except TimeoutError:
        return f"no frame for {idle_seconds:g} s"
    except (MediaStreamError, Closed):
        return "the camera's track ended"
