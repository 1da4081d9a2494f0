"""The Python client without asyncio."""

import asyncio
import itertools
import signal
import subprocess
import sys
import threading
import time
from asyncio import timeout
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from portrait.client import Client, ClientError, Picture, SyncClient
from portrait.server.app import RunningService
from tests.calls import client, i420, pictures, rgb24, shown
from tests.people import Array, Clip, room

__all__ = ["client", "shown"]  # fixtures

INTERRUPTED = """
import sys, threading
import numpy as np
from portrait.client import SyncClient

def source():
    yield np.zeros((48, 64, 3), np.uint8)
    threading.Event().wait()  # a camera that has stopped

with SyncClient(sys.argv[1]) as client:
    for reply in client.stream(source()):
        print(reply.id, flush=True)
"""


async def test_the_sync_client_gives_the_same_masks(service: RunningService, client: Client, shown: Clip) -> None:
    expected = [reply.array async for reply in client.stream(pictures(shown.frames, i420), every_frame=True)]
    target = f"127.0.0.1:{service.grpc_port}"

    def source() -> Iterator[Picture]:
        for frame in shown.frames:
            time.sleep(0.001)  # a camera blocks
            yield i420(frame)

    def run() -> tuple[list[Array], Array, int]:
        with SyncClient(target) as sync:
            masks = [reply.array for reply in sync.stream(source(), every_frame=True)]
            return masks, sync.segment(rgb24(shown.frames[0]), mode="cutout").array, len(sync.models())

    masks, cutout, models = await asyncio.to_thread(run)
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(masks, expected, strict=True))
    assert cutout.shape == (360, 640, 4)
    assert models >= 1


async def test_it_can_leave_a_stream_and_raises_what_its_twin_raises(service: RunningService) -> None:
    def fails() -> Iterator[Array]:
        yield room(64, 48)
        raise ZeroDivisionError("the camera fell down")

    def run() -> None:
        with SyncClient(f"127.0.0.1:{service.grpc_port}") as sync:
            stream: Any = sync.stream(itertools.repeat(room(64, 48)))
            assert next(stream).id == 0
            stream.close()
            with pytest.raises(ClientError, match="unknown mode 'sepia'"):
                list(sync.stream([room(64, 48)], mode="sepia"))
            with pytest.raises(ZeroDivisionError, match="the camera fell down"):
                list(sync.stream(fails()))

    await asyncio.to_thread(run)
    assert await service.sessions.drain(60) == 0


async def test_what_is_left_open_ends_with_the_block(service: RunningService) -> None:
    before = set(threading.enumerate())

    def run() -> Any:
        with SyncClient(f"127.0.0.1:{service.grpc_port}") as sync:
            stream: Any = sync.stream(itertools.repeat(room(64, 48)))
            assert next(stream).id == 0
            return stream

    stream = await asyncio.to_thread(run)
    assert await service.sessions.drain(60) == 0
    await asyncio.to_thread(stream.close)
    left = {thread for thread in set(threading.enumerate()) - before if thread.name.startswith("portrait-client")}
    for thread in left:
        await asyncio.to_thread(thread.join, 60)
        assert not thread.is_alive()


async def test_it_may_be_opened_again_and_says_when_it_is_not_open(service: RunningService) -> None:
    def run() -> None:
        sync = SyncClient(f"127.0.0.1:{service.grpc_port}")
        for _ in range(2):
            with pytest.raises(RuntimeError, match="use `with SyncClient"):
                sync.models()
            with pytest.raises(RuntimeError, match="use `with SyncClient"):
                list(sync.stream([room(64, 48)]))
            with sync:
                assert sync.models()

    await asyncio.to_thread(run)


async def test_an_interrupt_ends_a_program_whose_source_blocks(service: RunningService) -> None:
    command = [sys.executable, "-c", INTERRUPTED, f"127.0.0.1:{service.grpc_port}"]
    program = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert program.stdout is not None
    try:
        assert await program.stdout.readline() == b"0\n"
        program.send_signal(signal.SIGINT)
        async with timeout(60):
            _, told = await program.communicate()
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    assert program.returncode == -signal.SIGINT
    assert told.decode().count("Error") == 0, told.decode()
    assert told.endswith(b"KeyboardInterrupt\n")
    assert await service.sessions.drain(60) == 0
