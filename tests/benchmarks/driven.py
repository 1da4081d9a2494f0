"""Servers of streams, in processes of their own, and cameras that drive them."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import numpy as np

from portrait.core.segmenters import EMBEDDED, open_model
from portrait.kserve import inference_pb2 as kserve
from portrait.v1 import segmentation_pb2 as pb
from tests.benchmarks import bare, plain
from tests.benchmarks.processes import cpu_seconds

MODEL = EMBEDDED / "portrait.tflite"
TRITON = Path(__file__).parents[2] / ".venv-pytriton" / "bin" / "python"
IN_FLIGHT = 8
"""Frames a stream leaves unanswered, at most; a frame over that is skipped, as a camera's is."""


@dataclass(frozen=True)
class Server:
    """A server under test, and how to speak to it."""

    name: str
    target: str
    pid: int
    method: str
    opening: bytes | None
    """The first message, which is answered before the frames are; None: there is none."""
    unary: bool
    """Whether each frame is a call of its own."""
    frame: Callable[[bytes], bytes]
    """The message of a JPEG."""


@dataclass
class Load:
    """What came of one server's frames. Seconds."""

    round_trips: list[float] = field(default_factory=list)
    skipped: int = 0
    cpu: float = 0.0
    wall: float = 0.0

    def summary(self) -> dict[str, float]:
        """Milliseconds."""
        trips = 1000 * np.array(self.round_trips)
        return {
            "frames": len(trips),
            "skipped": self.skipped,
            "frames_per_second": round(len(trips) / self.wall, 1),
            "cpu_ms_per_frame": round(1000 * self.cpu / len(trips), 3),
            "p50_ms": round(float(np.percentile(trips, 50)), 2),
            "p99_ms": round(float(np.percentile(trips, 99)), 2),
        }


@asynccontextmanager
async def started(name: str, command: Sequence[str | Path], cores: set[int] | None) -> AsyncIterator[Server]:
    """A server in a process of its own, on `cores` only."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        while not (line := await process.stdout.readline()).startswith(b"{"):
            assert line, f"{name} has not started"
        target = json.loads(line)["grpc"]
        yield SPEAKING[name](target, process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await process.wait()


def _speak_plain(target: str, pid: int) -> Server:
    return Server("plain", target, pid, f"/{plain.SERVICE}/{plain.METHOD}", None, False, lambda jpeg: jpeg)


def _speak_bare(target: str, pid: int) -> Server:
    return Server("bare", target, pid, f"/{bare.SERVICE}/{bare.METHOD}", None, False, lambda jpeg: jpeg)


def _speak_ours(target: str, pid: int) -> Server:
    config = pb.StreamConfig(delivery=pb.DELIVERY_EVERY_FRAME)
    opening = pb.SegmentStreamRequest(config=config).SerializeToString()
    return Server("ours", target, pid, "/portrait.v1.SegmentationService/SegmentStream", opening, False, _frame)


def _speak_triton(target: str, pid: int) -> Server:
    model = open_model(MODEL)
    tensor, prior = kserve.ModelInferRequest.InferInputTensor, bytes(model.width * model.height)
    inputs = [
        tensor(name="image", datatype="BYTES", shape=[1]),
        tensor(name="prior", datatype="UINT8", shape=[model.height, model.width, 1]),
    ]

    def frame(jpeg: bytes) -> bytes:
        raw = [len(jpeg).to_bytes(4, "little") + jpeg, prior]
        return kserve.ModelInferRequest(
            model_name="portrait", inputs=inputs, raw_input_contents=raw
        ).SerializeToString()

    return Server("triton", target, pid, "/inference.GRPCInferenceService/ModelInfer", None, True, frame)


SPEAKING = {"ours": _speak_ours, "plain": _speak_plain, "bare": _speak_bare, "triton": _speak_triton}


def _frame(jpeg: bytes) -> bytes:
    picture = pb.Picture(format=pb.PICTURE_FORMAT_JPEG, data=jpeg)
    return pb.SegmentStreamRequest(frame=pb.Frame(picture=picture)).SerializeToString()


def ours(model: str = "portrait", cores: set[int] | None = None) -> contextlib.AbstractAsyncContextManager[Server]:
    """`portrait serve` with one worker that takes whatever comes and does all of it."""
    options = ["--http-port", "0", "--grpc-port", "0", "--media-ports", "0-0", "--workers", "1"]
    options += ["--cpu-share", "0", "--quality-steps", "0"]
    command = [sys.executable, "-m", "portrait", "serve", "--json", *options, "--max-sessions", "100"]
    return started("ours", [*command, "--model", model], cores)


def theirs() -> contextlib.AbstractAsyncContextManager[Server]:
    """The first version, with the same network."""
    return started("plain", [sys.executable, "-m", "tests.benchmarks.plain", MODEL], None)


def nobodys(cores: set[int] | None = None) -> contextlib.AbstractAsyncContextManager[Server]:
    """GRPC alone: answers as large as the model's masks, and no work."""
    model = open_model(MODEL)
    return started("bare", [sys.executable, "-m", "tests.benchmarks.bare", str(model.width * model.height)], cores)


def triton() -> contextlib.AbstractAsyncContextManager[Server]:
    """Triton with the same network."""
    return started("triton", [TRITON, Path(__file__).with_name("triton_server.py"), MODEL], None)


class Camera:
    """One client's calls: frames go out, answers come back in their order."""

    def __init__(self, server: Server, channel: grpc.aio.Channel) -> None:
        self._server, self._channel = server, channel
        self._calls: deque[grpc.aio.UnaryUnaryCall] = deque()
        self._stream = None if server.unary else channel.stream_stream(server.method)()

    async def open(self) -> None:
        """Say what comes first."""
        if self._server.opening is not None:
            await self.send(self._server.opening)
            await self.receive()

    async def send(self, message: bytes) -> None:
        """Send a frame."""
        if self._stream is None:
            self._calls.append(self._channel.unary_unary(self._server.method)(message))
        else:
            await self._stream.write(message)

    async def receive(self) -> None:
        """Wait for the next answer."""
        if self._stream is None:
            await self._calls.popleft()
        else:
            assert await self._stream.read() is not grpc.aio.EOF


async def drive(
    server: Server, pictures: Sequence[bytes], phases: Sequence[float], rate: float, seconds: float, load: Load
) -> None:
    """Send at `rate` on a stream for each of `phases` (parts of a frame's time), and note what comes."""
    messages = [server.frame(picture) for picture in pictures]
    streams = len(phases)

    async def all_until(moment: float, noting: Load) -> None:
        cameras = zip(opened, phases, strict=True)
        await asyncio.gather(*(_run(camera, messages, phase, rate, moment, noting) for camera, phase in cameras))

    async with contextlib.AsyncExitStack() as stack:
        # A connection for each: so do clients on machines of their own.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(server.target, options=options))
            for _ in range(streams)
        ]
        opened = [Camera(server, channel) for channel in channels]
        for camera in opened:
            await camera.open()
        await all_until(time.monotonic() + min(2.0, seconds / 4), Load())
        before, began = cpu_seconds(server.pid), time.monotonic()
        await all_until(began + seconds, load)
        load.cpu += cpu_seconds(server.pid) - before
        load.wall += time.monotonic() - began


async def _run(camera: Camera, messages: Sequence[bytes], phase: float, rate: float, until: float, load: Load) -> None:
    """One stream until a moment; everything it sent is answered then."""
    unanswered: deque[float] = deque()
    done = False

    async def receive() -> None:
        while not done or unanswered:
            if not unanswered:
                await asyncio.sleep(0.001)
                continue
            await camera.receive()
            load.round_trips.append(time.monotonic() - unanswered.popleft())

    receiver = asyncio.create_task(receive())
    due, number = time.monotonic() + phase / rate, 0
    while due < until:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        if len(unanswered) < IN_FLIGHT:
            unanswered.append(time.monotonic())
            await camera.send(messages[number % len(messages)])
        else:
            load.skipped += 1
        due, number = due + 1 / rate, number + 1
    done = True
    await receiver
