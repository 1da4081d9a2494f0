"""`portrait bench --streams` and `--load`: a whole box under streams like those of cameras.

The box runs in processes of its own and is measured by its own metrics, which leave out what the clients here cost.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import aiohttp
import av
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from portrait.bench.counters import read_counters
from portrait.bench.frame import RATE, SIZES, make_frames
from portrait.bench.report import Kind, Level
from portrait.client import Client, ClientError, Picture
from portrait.errors import PortraitError
from portrait.image.av_frame import av_from_frame
from portrait.image.compressed import encode
from portrait.image.convert import bgr_from_frame
from portrait.metrics import STAGES
from portrait.settings import PREFIX

TRANSPORTS = ("grpc", "webrtc")
OUTPUT_MODES = {"mask only": "mask", "composite": "blur"}

WARM_SECONDS = 2.0
"""Time before each measurement for connections to open and encoders to find their rate."""

LONGEST_SECONDS = 60.0
"""Time after which a box that gives no result at all is measured as it is."""

BEYOND = 1.2
"""Streams asked for in the last row, as a multiple of those that were admitted."""

PICTURES = 30
"""How many different pictures a stream sends in a loop."""


class BenchFailed(PortraitError):
    """The box that was to be measured did not start; the message is its own."""

    reason = "BENCH_FAILED"


async def measure_kinds(arguments: Sequence[str], seconds: float) -> AsyncIterator[Level]:
    """Measure one stream of each size, mode and transport, one after the other, on a box without admission control."""
    async with loaded_box([*arguments, "--cpu-share", "0", "--quality-steps", "0"]) as box:
        for transport in TRANSPORTS:
            for size in SIZES:
                for mode in OUTPUT_MODES:
                    async with Streams(box, Kind(transport, size, mode)) as streams:
                        await streams.add(1)
                        yield await streams.measure(seconds)


async def measure_load(arguments: Sequence[str], kind: Kind, seconds: float, most: int = 256) -> AsyncIterator[Level]:
    """Measure 1, 2, 4, ... streams until one is refused or there are `most`, then a fifth more than were admitted."""
    async with loaded_box(arguments) as box, Streams(box, kind) as streams:
        wanted = 1
        while wanted <= most:
            await streams.add(wanted - streams.asked)
            yield await streams.measure(seconds)
            if streams.refused:
                break
            wanted *= 2
        if streams.refused:
            await streams.add(max(1, round(BEYOND * streams.open) - streams.open))
            yield await streams.measure(seconds)


@dataclass(frozen=True, slots=True)
class LoadedBox:
    """The addresses of a box: its page, without a slash at the end, and HOST:PORT of gRPC."""

    page: str
    grpc: str


@asynccontextmanager
async def loaded_box(arguments: Sequence[str]) -> AsyncIterator[LoadedBox]:
    """Run `portrait serve` with these arguments, and without this machine's settings, for the length of the block.

    What it measures of the machine goes into a folder that is gone afterwards.

    Raises:
        BenchFailed: it did not start; with its own message.
    """
    with tempfile.TemporaryDirectory(prefix="portrait-bench-") as folder:
        async with _serving(arguments, folder) as box:
            yield box


@asynccontextmanager
async def _serving(arguments: Sequence[str], folder: str) -> AsyncIterator[LoadedBox]:
    # Without the settings of a service that this machine may be set up for.
    environ = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "portrait", "serve", "--json", "--http-port", "0", "--grpc-port", "0",
        "--media-ports", "0-0", "--log-level", "error", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=environ | {"XDG_CACHE_HOME": folder},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.create_task(process.stderr.read())
    try:
        line = await process.stdout.readline()
        if not line:
            raise BenchFailed((await errors).decode().strip())
        told = json.loads(line)
        yield LoadedBox(told["page"].rstrip("/"), told["grpc"])
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        await errors


class Streams:
    """Streams of one kind, like those of cameras. An async context manager, which closes all of them."""

    def __init__(self, box: LoadedBox, kind: Kind) -> None:
        self._box, self._kind = box, kind
        self.asked = self.refused = 0
        """How many were asked for, and how many of those were refused."""
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        pixels = [bgr_from_frame(frame) for frame in make_frames(*SIZES[kind.size], PICTURES)]
        self._jpegs = [Picture.jpeg(encode(picture, ".jpg")) for picture in pixels] if kind.transport == "grpc" else []
        self._packets = _packets(*SIZES[kind.size]) if kind.transport == "webrtc" else []

    async def __aenter__(self) -> "Streams":
        self._http = await self._stack.enter_async_context(aiohttp.ClientSession())
        self._client = await self._stack.enter_async_context(Client(self._box.grpc))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    @property
    def open(self) -> int:
        """How many were admitted and have not ended."""
        return sum(not task.done() for task in self._tasks)

    async def add(self, count: int) -> None:
        """Ask for `count` more, one after the other."""
        for _ in range(count):
            self.asked += 1
            started = asyncio.Event()
            life = self._send_grpc if self._kind.transport == "grpc" else self._send_webrtc
            task = asyncio.create_task(life(started), name="bench-stream")
            waiting = asyncio.create_task(started.wait())
            await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if task.done():
                task.result()
                self.refused += 1
            else:
                self._tasks.append(task)

    async def measure(self, seconds: float) -> Level:
        """Measure the box for `seconds`, by its own metrics; longer while it has not given any result."""
        await asyncio.sleep(WARM_SECONDS)
        loop = asyncio.get_running_loop()
        began, before = loop.time(), await asyncio.to_thread(read_counters, self._box.page)
        while True:
            await asyncio.sleep(seconds)
            after, took = await asyncio.to_thread(read_counters, self._box.page), loop.time() - began
            counted = after.since(before)
            done = counted.total("portrait_frames_total", result="done")
            if done or not self.open or took > LONGEST_SECONDS:
                break
        dropped = counted.total("portrait_frames_total", result="dropped")
        cpu = counted.total("process_cpu_seconds_total")
        return Level(
            kind=self._kind,
            asked=self.asked,
            admitted=self.open,
            frames_per_second=round(done / took / max(1, self.open), 1),
            dropped=round(dropped / max(1.0, done + dropped), 3),
            age_p50=counted.quantile(0.5, "portrait_frame_age_seconds"),
            age_p99=counted.quantile(0.99, "portrait_frame_age_seconds"),
            cpu=round(1000 * cpu / max(1.0, done), 3),
            cores=round(cpu / took, 2),
            quality=int(after.largest("portrait_quality_step")),
            stages={
                stage: (
                    counted.quantile(0.5, "portrait_stage_seconds", stage=stage),
                    counted.quantile(0.99, "portrait_stage_seconds", stage=stage),
                )
                for stage in STAGES
                if counted.total("portrait_stage_seconds_count", stage=stage)
            },
        )

    async def _send_grpc(self, started: asyncio.Event) -> None:
        stream = self._client.stream(_paced(self._jpegs), mode=OUTPUT_MODES[self._kind.mode], reconnect_seconds=0)
        try:
            async for _ in stream:
                started.set()
        except ClientError as error:
            if error.code != "RESOURCE_EXHAUSTED":
                raise
        finally:
            await stream.aclose()

    async def _send_webrtc(self, started: asyncio.Event) -> None:
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        results: asyncio.Queue[MediaStreamTrack] = asyncio.Queue()
        connection.on("track", results.put_nowait)
        try:
            connection.addTrack(_Camera(self._packets))
            await connection.setLocalDescription(await connection.createOffer())
            query = {"result": "mask"} if self._kind.mode == "mask only" else {"mode": OUTPUT_MODES[self._kind.mode]}
            async with self._http.post(
                f"{self._box.page}/webrtc",
                params=query,
                data=connection.localDescription.sdp,
                headers={"Content-Type": "application/sdp"},
            ) as response:
                if response.status == 503:
                    return
                response.raise_for_status()
                answer = RTCSessionDescription(await response.text(), "answer")
            await connection.setRemoteDescription(answer)
            track = await results.get()
            with suppress(MediaStreamError):
                while True:
                    await track.recv()
                    started.set()
        finally:
            await connection.close()


class _Camera(MediaStreamTrack):
    """A camera whose pictures are encoded beforehand: this side must keep up with many streams."""

    kind = "video"

    def __init__(self, packets: Sequence[Any]) -> None:
        super().__init__()
        self._packets, self._sent, self._began = packets, 0, 0.0

    async def recv(self) -> Any:
        """Return the next packet when it is due."""
        loop = asyncio.get_running_loop()
        self._began = self._began or loop.time()
        await asyncio.sleep(self._began + self._sent / RATE - loop.time())
        packet = self._packets[self._sent % len(self._packets)]
        packet.pts, packet.time_base = 3000 * self._sent, Fraction(1, 90_000)
        self._sent += 1
        return packet


def _packets(width: int, height: int) -> list[Any]:
    """Encode as VP8. The first packet is a keyframe, so that the loop can be repeated."""
    encoder: Any = av.CodecContext.create("libvpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.bit_rate = width, height, "yuv420p", 1_500_000
    encoder.time_base = Fraction(1, 30)
    encoder.options = {"deadline": "realtime", "cpu-used": "-8", "lag-in-frames": "0"}
    pictures = [av_from_frame(frame) for frame in make_frames(width, height, PICTURES)]
    return [packet for picture in pictures for packet in encoder.encode(picture)]


async def _paced(pictures: Sequence[Picture]) -> AsyncIterator[Picture]:
    loop = asyncio.get_running_loop()
    began, sent = loop.time(), 0
    while True:
        await asyncio.sleep(began + sent / RATE - loop.time())
        yield pictures[sent % len(pictures)]
        sent += 1
