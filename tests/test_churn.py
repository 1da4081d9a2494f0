"""Streams opened and cut at random moments leave nothing behind. CHURN_STREAMS makes it longer: `make churn`."""

import asyncio
import ctypes
import gc
import logging
import os
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from portrait.app import run_service
from portrait.settings import Settings
from portrait.v1 import segmentation_pb2 as pb
from portrait.v1 import segmentation_pb2_grpc as pb_grpc
from tests.calls import jpeg
from tests.people import room

STREAMS = int(os.environ.get("CHURN_STREAMS", "400"))
SEED = int(os.environ.get("CHURN_SEED", "1"))
AT_ONCE = 16
LEAK = 1024
"""Bytes that a stream may leave behind, at most: less than a thread, an interpreter, a call or a frame."""

OURS = ("Session", "Pipeline", "Stream", "Latest", "TFLiteSegmenter", "Interpreter", "OwnThread")
FRAME = pb.SegmentStreamRequest(frame=pb.Frame(picture=jpeg(room(64, 48)).message))
CONFIGS = [
    pb.SegmentStreamRequest(config=pb.StreamConfig()),
    pb.SegmentStreamRequest(config=pb.StreamConfig(delivery=pb.DELIVERY_EVERY_FRAME, prior_every=1)),
    pb.SegmentStreamRequest(config=pb.StreamConfig(output=pb.Output(mode="blur"))),
    pb.SegmentStreamRequest(config=pb.StreamConfig(model="none")),
    FRAME,
]


async def stream(target: str, dice: random.Random) -> None:
    """One stream, whose client changes its mind after some step or other, or not at all."""
    call: Any = None

    async def config() -> None:
        await call.write(dice.choices(CONFIGS, [8, 8, 4, 1, 1])[0])

    async def frames() -> None:
        for _ in range(dice.randrange(4)):
            await call.write(FRAME)

    steps: list[Callable[[], Awaitable[Any]]] = [config, frames, lambda: call.read(), frames, lambda: call.read()]
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = pb_grpc.SegmentationServiceStub(channel).SegmentStream()
        try:
            for step in steps[: dice.randrange(len(steps) + 1)]:
                await step()
                await asyncio.sleep(dice.choice([0.0, 0.0, 0.001, 0.01]))
            match dice.randrange(4):
                case 0:
                    await call.done_writing()
                    while await call.read() is not grpc.aio.EOF:
                        pass
                case 1:
                    await call.done_writing()
                case 2:
                    call.cancel()
                case _:
                    pass  # the connection is closed under the call
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # refused: that is a way to end, too


def ours() -> Counter[str]:
    """Objects of a stream's life, by class."""
    gc.collect()
    names = (type(thing).__name__ for thing in gc.get_objects())
    return Counter(name for name in names if name in OURS)


def resident() -> int:
    """Bytes of memory of this process; what the allocator only keeps is given back first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def threads() -> int:
    return len([thread for thread in threading.enumerate() if thread.name.startswith("session-")])


async def test_streams_that_are_cut_anywhere_leave_nothing(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)  # every record kept for a report would count as left behind
    dice = random.Random(SEED)
    async with run_service(settings.model_copy(update={"max_sessions": 4 * AT_ONCE})) as running:
        target = f"127.0.0.1:{running.grpc_port}"

        async def churn(count: int) -> None:
            for _ in range(0, count, AT_ONCE):
                await asyncio.gather(*(stream(target, random.Random(dice.random())) for _ in range(AT_ONCE)))
            async with asyncio.timeout(30):
                while running.sessions:
                    await asyncio.sleep(0.01)

        await churn(max(AT_ONCE, STREAMS // 10))  # fills caches, pools and arenas
        tasks, objects, memory = len(asyncio.all_tasks()), ours(), resident()
        await churn(STREAMS)
        async with asyncio.timeout(30):
            while threads() or len(asyncio.all_tasks()) > tasks:
                await asyncio.sleep(0.01)
        assert ours() == objects
        grown = resident() - memory
        print(f"{STREAMS} streams: {grown / STREAMS:.0f} bytes each, {memory / 2**20:.0f} MB before")
        assert grown < max(LEAK * STREAMS, 16 * 2**20)
