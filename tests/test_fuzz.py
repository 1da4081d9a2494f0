"""Whatever comes in, to whichever call: no crash, no hang, no INTERNAL. FUZZ_SECONDS makes it longer: `make fuzz`."""

import asyncio
import contextlib
import itertools
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection
from typing import Any

import grpc
import grpc.aio
import hypothesis
import pytest
from hypothesis import strategies as st

from portrait.client import Client
from portrait.server.app import RunningService
from portrait.v1 import segmentation_pb2 as pb
from tests.calls import jpeg
from tests.embedded import FINE
from tests.messages import SEGMENT_STREAM, STREAMS, UNARY, mutated, opening, well_formed
from tests.people import room

SECONDS = float(os.environ.get("FUZZ_SECONDS", "4")) / 2  # for each of the two ways
SEED = int(os.environ.get("FUZZ_SEED", "1"))
HANGS = 20
"""Seconds after which a call counts as one that hangs."""

LEAST = 50
"""Calls."""

LONGEST = SECONDS + 240
"""Seconds after which a test has failed that has not seen what it waits for."""

WRONG = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED)
GAVE_UP = "Internal error from Core"
"""This end's own word for a message sent after the server had ended the call."""


BOTH = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}
"""How a service answers that takes some calls and refuses others; one of these alone shows nothing."""


def enough(began: float, counts: Counter[Any], paths: Collection[str] = ()) -> bool:
    """Whether the time is over, calls enough were made, and both answers and all `paths` were seen.

    However slow the machine is: what never comes fails the test LONGEST seconds after it began.
    """
    took = time.monotonic() - began
    met = counts.total() >= LEAST and {code for _, code in counts} >= BOTH and {path for path, _ in counts} >= {*paths}
    assert met or took < LONGEST, f"after {took:.0f} s: {counts}"
    return met and took > SECONDS


def tell(kind: str, counts: Counter[Any]) -> None:
    rows = sorted(f"{path} {code}: {n}" for (path, code), n in counts.items())
    print(f"\n{counts.total()} {kind} calls", *rows, sep="\n")


def check_answer(path: str, answer: bytes) -> None:
    if path == SEGMENT_STREAM:
        result = pb.SegmentStreamResponse.FromString(answer).result
        assert result.error.code != grpc.StatusCode.INTERNAL.value[0], result.error


async def one_call(channel: grpc.aio.Channel, path: str, dice: random.Random) -> grpc.StatusCode:
    call = channel.unary_unary(path)(mutated(dice.choice(UNARY[path]), dice), timeout=HANGS)
    return await call.code()


async def one_stream(channel: grpc.aio.Channel, path: str, dice: random.Random) -> grpc.StatusCode | None:
    async def requests() -> AsyncIterator[bytes]:
        for message in opening(path, dice):
            yield mutated(message, dice) if dice.random() < 0.5 else message.SerializeToString()
        for _ in range(dice.randrange(6)):
            yield mutated(dice.choice(STREAMS[path]), dice)

    call = channel.stream_stream(path)(requests(), timeout=HANGS)
    try:
        async for answer in call:
            check_answer(path, answer)
    except grpc.aio.AioRpcError as error:
        if error.details() == GAVE_UP:
            return None
    return await call.code()


async def one_watch(channel: grpc.aio.Channel, path: str, dice: random.Random) -> grpc.StatusCode:
    """A call that would never end: left after its first answer."""
    call = channel.unary_stream(path)(mutated(dice.choice(STREAMS[path]), dice), timeout=HANGS)
    with contextlib.suppress(grpc.aio.AioRpcError):  # told by its code
        await call.read()
        call.cancel()
    return await call.code()


@pytest.mark.filterwarnings("ignore:unclosed")
async def test_no_bytes_crash_hang_or_confuse_the_service(service: RunningService) -> None:
    dice, counts = random.Random(SEED), Counter[Any]()
    began = time.monotonic()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        for each in itertools.cycle([*UNARY, *STREAMS]):
            if enough(began, counts, {*UNARY, *STREAMS}):
                break
            seed = dice.randrange(2**32)
            own = random.Random(seed)
            # Half of the calls go where a frame's whole way is.
            path = own.choice([SEGMENT_STREAM, each])
            one = one_call if path in UNARY else one_watch if path.endswith("Watch") else one_stream
            code = await one(channel, path, own)
            counts[path, code] += 1
            assert code not in WRONG, f"{code} of {path}, mutation {seed}"
    tell("mutated", counts)
    assert await service.sessions.drain(60) == 0


FRAMES = well_formed(pb.Frame.DESCRIPTOR).map(lambda frame: pb.SegmentStreamRequest(frame=frame))
CONTROLS = well_formed(pb.Control.DESCRIPTOR).map(lambda control: pb.SegmentStreamRequest(control=control))
CALLS = st.one_of(
    st.sampled_from(sorted(UNARY)).flatmap(
        lambda path: st.tuples(st.just(path), st.lists(well_formed(UNARY[path][0].DESCRIPTOR), min_size=1, max_size=1))
    ),
    st.tuples(
        st.just(SEGMENT_STREAM),
        st.builds(
            lambda config, rest: [pb.SegmentStreamRequest(config=config), *rest],
            well_formed(pb.StreamConfig.DESCRIPTOR) | st.just(pb.StreamConfig()),
            st.lists(FRAMES | CONTROLS | well_formed(pb.SegmentStreamRequest.DESCRIPTOR), max_size=5),
        ),
    ),
)


def code_of(channel: grpc.Channel, path: str, messages: list[Any]) -> grpc.StatusCode:
    data = [message.SerializeToString() for message in messages]
    try:
        if path in UNARY:
            channel.unary_unary(path)(data[0], timeout=HANGS)
        else:
            for answer in channel.stream_stream(path)(iter(data), timeout=HANGS):
                check_answer(path, answer)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()  # type: ignore[attr-defined]  # every error of a call is a Call as well
        return code
    return grpc.StatusCode.OK


async def test_no_message_crashes_hangs_or_confuses_the_service(service: RunningService) -> None:
    counts = Counter[Any]()
    began = time.monotonic()

    def trouble() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:

            @hypothesis.settings(
                max_examples=20, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
            )
            @hypothesis.given(CALLS)
            def one(called: tuple[str, list[Any]]) -> None:
                if not enough(began, counts):
                    code = code_of(channel, *called)
                    counts[called[0], code] += 1
                    assert code not in WRONG

            for number in itertools.count(SEED):
                if enough(began, counts):
                    return
                hypothesis.seed(number)(one)()

    await asyncio.to_thread(trouble)
    tell("random", counts)
    assert await service.sessions.drain(60) == 0


async def test_the_service_answers_after_all_that(service: RunningService) -> None:
    async with Client(f"127.0.0.1:{service.grpc_port}") as client:
        assert (await client.segment(jpeg(room(64, 48)))).array.shape == (FINE, FINE)
