"""`portrait process --server` ends, whatever the service does: silent, or waiting until its results are taken."""

import asyncio
from asyncio import timeout
from collections.abc import AsyncIterator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from portrait.cli import main
from portrait.client import Client, ClientError
from portrait.errors import SegmentationFailed
from portrait.image.frame import Frame, Timestamp
from portrait.transports.files import remote_work
from portrait.v1 import segmentation_pb2 as pb
from tests.films import SHOWN, write_video
from tests.silence import INFO, SILENT, result, serving

SIZE = (1920, 1080)
"""3 MB as I420: more than gRPC and the kernel hold on the way, in each direction."""


def large(count: int) -> Iterator[Frame]:
    width, height = SIZE
    luma, chroma = np.zeros((height, width), np.uint8), np.full((height // 2, width // 2), 128, np.uint8)
    return (Frame(luma, chroma, chroma, Timestamp(i, Fraction(1, 30)), i / 30) for i in range(count))


async def through(address: str, count: int) -> list[int]:
    """What comes back of so many large frames."""

    def work() -> list[int]:
        with remote_work(Client(address), "portrait") as opened:
            return [frame.timestamp.ticks for frame in opened(large(count))]

    async with timeout(100):
        return await asyncio.to_thread(work)


async def takes_one_at_a_time(requests: AsyncIterator[Any], context: Any) -> None:
    """It takes no frame while its last result is not taken, as flow control has it."""
    await context.write(pb.SegmentStreamResponse(info=INFO))
    async for request in requests:
        if request.HasField("frame"):
            await context.write(result(request))


async def takes_nothing(requests: AsyncIterator[Any], context: Any) -> None:
    await anext(requests)
    await context.write(pb.SegmentStreamResponse(info=INFO))
    await asyncio.Event().wait()


async def gives_too_much(requests: AsyncIterator[Any], context: Any) -> None:
    await context.write(pb.SegmentStreamResponse(info=INFO))
    async for request in requests:
        if request.HasField("frame"):
            for _ in range(2):
                await context.write(result(request))


async def ends_early(requests: AsyncIterator[Any], context: Any) -> None:
    await context.write(pb.SegmentStreamResponse(info=INFO))
    await anext(requests)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("exchange.REPLY_SECONDS", "backend.REPLY_SECONDS", "backend.STILL_SECONDS"):
        monkeypatch.setattr(f"portrait.transports.files.{name}", 1.0)


async def test_large_frames_and_results_do_not_wait_for_each_other() -> None:
    async with serving(takes_one_at_a_time) as address:
        assert await through(address, 12) == list(range(12))


async def test_a_service_that_takes_no_frame_is_given_up(impatient: None) -> None:
    async with serving(takes_nothing) as address:
        with pytest.raises(ClientError, match="has taken no frame and given no result for 1 s"):
            await through(address, 12)


async def test_a_service_that_gives_too_much_or_too_little_is_told_so() -> None:
    async with serving(gives_too_much) as address:
        with pytest.raises(SegmentationFailed, match="got more results than frames"):
            await through(address, 12)
    async with serving(ends_early) as address:
        with pytest.raises((SegmentationFailed, ClientError), match=r"ended the stream|the stream is over"):
            await through(address, 12)


@pytest.mark.parametrize(
    ("source", "kind", "named"),
    [
        *(("in.mkv", kind, ["--model", "portrait"]) for kind in SILENT),
        ("in.mkv", "before it accepts", []),  # it is asked for its models first
        ("in.png", "no protocol", []),
        ("in.png", "before it accepts", []),
    ],
)
async def test_a_command_ends_when_its_service_is_silent(
    tmp_path: Path, impatient: None, capsys: pytest.CaptureFixture[str], source: str, kind: str, named: list[str]
) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), SHOWN.frames[0])
    write_video(tmp_path / "in.mkv", sound=False)
    target = tmp_path / source.replace("in.", "out.")
    async with SILENT[kind]() as address, timeout(100):
        command = ["process", str(tmp_path / source), str(target), "--server", address, *named]
        assert await asyncio.to_thread(main, command) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("portrait: DEADLINE_EXCEEDED: ")
    assert not target.exists()
