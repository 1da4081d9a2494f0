"""Streams that go on until they are cancelled."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from portrait.client import Picture
from portrait_client.client import Stream


@asynccontextmanager
async def together(*lives: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Tasks for the length of the block, at whose end none may have failed."""
    tasks = [asyncio.create_task(life) for life in lives]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


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
