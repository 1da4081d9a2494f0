"""Streams opened and cut at random moments leave nothing behind. CHURN_STREAMS makes it longer: `make churn`."""

import asyncio
import gc
import logging
import os
import random
import sys
import threading
from asyncio import timeout
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
import pytest

from portrait.server.app import run_service
from portrait.settings import Settings
from portrait.v1 import segmentation_pb2 as pb
from portrait.v1 import segmentation_pb2_grpc as pb_grpc
from tests.benchmarks.counted import allocated, resident
from tests.calls import jpeg
from tests.people import room

STREAMS = int(os.environ.get("CHURN_STREAMS", "150"))
SEED = int(os.environ.get("CHURN_SEED", "1"))
AT_ONCE = 16
LEAK = 1024
"""Bytes that a stream may leave behind, at most: less than a thread, an interpreter, a call or a frame."""

SETTLING = 2 * 2**20
"""Bytes that gRPC takes over the first thousands of connections and then uses again."""

BLOCKS = 16
"""Small Python objects that a stream may leave behind, at most: a session has hundreds."""

ROUNDS = 3
"""What one round leaves may be a cache that grew once; what leaks is left by every round."""

OURS = ("Session", "Pipeline", "Stream", "NewestSlot", "TFLiteSegmenter", "Interpreter", "WatchedThread")
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
    classes = (type(thing) for thing in gc.get_objects())
    # pytest has a Session, too.
    return Counter(of.__name__ for of in classes if of.__name__ in OURS and not of.__module__.startswith("_pytest"))


def threads() -> int:
    return len([thread for thread in threading.enumerate() if thread.name.startswith("session-")])


async def test_streams_that_are_cut_anywhere_leave_nothing(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)  # every record kept for a report would count as left behind
    dice = random.Random(SEED)
    async with run_service(settings.model_copy(update={"max_sessions": 4 * AT_ONCE})) as running:
        target = f"127.0.0.1:{running.grpc_port}"
        idle = len(asyncio.all_tasks())

        async def churn(count: int) -> None:
            for _ in range(0, count, AT_ONCE):
                await asyncio.gather(*(stream(target, random.Random(dice.random())) for _ in range(AT_ONCE)))
            async with timeout(60):
                while running.sessions or threads() or len(asyncio.all_tasks()) > idle:
                    await asyncio.sleep(0.01)
            assert not ours()

        await churn(max(AT_ONCE, STREAMS // 10))  # fills caches, pools and arenas
        for _ in range(ROUNDS):
            # What is held, not RSS: that varies by 20 MB with how full the threads leave the pages they shared.
            memory, blocks, pages = allocated(), sys.getallocatedblocks(), resident()
            await churn(STREAMS)
            grown, more = allocated() - memory, sys.getallocatedblocks() - blocks
            print(f"{STREAMS} streams: {grown / STREAMS:.0f} bytes and {more / STREAMS:.1f} objects each")
            print(f"RSS: {pages / 2**20:.0f} MB before, {resident() / 2**20:.0f} MB after")
            if grown < LEAK * STREAMS + SETTLING and more < BLOCKS * STREAMS:
                return
        pytest.fail(f"{ROUNDS} times {STREAMS} streams left more than {LEAK} bytes or {BLOCKS} objects each")
