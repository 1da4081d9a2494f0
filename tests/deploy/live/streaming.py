"""Streams that go on until they are cancelled."""

import asyncio

from portrait.client import Picture
from portrait.client.client import Stream


async def send(stream: Stream, frames: list[Picture], pause: float) -> None:
    """One frame after the other, over and over."""
    i = 0
    while True:
        await stream.send(frames[i % len(frames)], i)
        await asyncio.sleep(pause)
        i += 1


async def receive(stream: Stream) -> None:
    """Take every reply."""
    while await stream.receive() is not None:
        pass
