"""`portrait bench --streams` and `--load`: a whole box under streams as cameras send them.

The box is a process of its own and is measured by its own numbers: what the streams cost on this side is not in them.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import aiohttp
import av
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from portrait.bench.frame import RATE, SIZES, make_frames
from portrait.bench.report import Kind, Level
from portrait.bench.scrape import buckets_of, quantile, scrape, total
from portrait.client import Client, ClientError, Picture
from portrait.errors import PortraitError
from portrait.image.av_frame import av_from_frame
from portrait.image.compressed import encode
from portrait.image.convert import bgr_from_frame
from portrait.metrics import STAGES
from portrait.settings import PREFIX

TRANSPORTS = ("grpc", "webrtc")
MODES = {"mask only": "mask", "composite": "blur"}

WARM_SECONDS = 2.0
"""Before anything counts: connections come up, and encoders find their rate."""

BEYOND = 1.2
"""Streams asked for, at last, as a multiple of those that were admitted."""

PICTURES = 30
"""Different pictures a stream sends, over and over."""


class BenchFailed(PortraitError):
    """The box that was to be measured did not start."""

    reason = "BENCH_FAILED"


async def measure_kinds(arguments: Sequence[str], seconds: float) -> AsyncIterator[Level]:
    """One stream of every size, mode and transport, one after the other, on a box that refuses nobody."""
    async with loaded_box([*arguments, "--cpu-share", "0", "--quality-steps", "0"]) as box:
        for transport in TRANSPORTS:
            for size in SIZES:
                for mode in MODES:
                    async with Streams(box, Kind(transport, size, mode)) as streams:
                        await streams.add(1)
                        yield await streams.measure(seconds)


async def measure_load(arguments: Sequence[str], kind: Kind, seconds: float, most: int = 256) -> AsyncIterator[Level]:
    """1, 2, 4, ... streams until one is refused or there are `most`, and then a fifth more than were admitted."""
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
    """Where a box is reached: its page's address, without a slash at the end, and HOST:PORT of gRPC."""

    page: str
    grpc: str


@asynccontextmanager
async def loaded_box(arguments: Sequence[str]) -> AsyncIterator[LoadedBox]:
    """A `portrait serve` with these arguments and nothing of this process's settings, for the length of the block.

    Raises:
        BenchFailed: it did not come up; what it said.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "portrait", "serve", "--json", "--http-port", "0", "--grpc-port", "0",
        "--media-ports", "0-0", "--log-level", "error", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        # Without the settings of the service that this machine may be set up for: nobody else calls this box.
        env={name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
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
    """Streams of one kind, as cameras send them. An async context manager: at its end all are closed."""

    def __init__(self, box: LoadedBox, kind: Kind) -> None:
        self._box, self._kind = box, kind
        self.asked = self.refused = 0
        """How many were asked for, and how many of them were not admitted."""
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
        """How many are admitted and have not ended."""
        return sum(not task.done() for task in self._tasks)

    async def add(self, count: int) -> None:
        """Ask for so many more, one after the other."""
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
        """What the box says of the next `seconds`."""
        await asyncio.sleep(WARM_SECONDS)
        loop = asyncio.get_running_loop()
        began, before = loop.time(), await asyncio.to_thread(scrape, self._box.page)
        await asyncio.sleep(seconds)
        after, took = await asyncio.to_thread(scrape, self._box.page), loop.time() - began
        counted = Counter(after)
        counted.subtract(before)
        done = total(counted, "portrait_frames_total", 'result="done"')
        dropped = total(counted, "portrait_frames_total", 'result="dropped"')
        cpu, ages = total(counted, "process_cpu_seconds_total"), buckets_of(counted, "portrait_frame_age_seconds")
        return Level(
            kind=self._kind,
            asked=self.asked,
            admitted=self.open,
            frames_per_second=round(done / took / max(1, self.open), 1),
            dropped=round(dropped / max(1.0, done + dropped), 3),
            age_p50=quantile(ages, 0.5),
            age_p99=quantile(ages, 0.99),
            cpu=round(1000 * cpu / max(1.0, done), 3),
            cores=round(cpu / took, 2),
            quality=int(max((v for k, v in after.items() if k.startswith("portrait_quality_step")), default=0)),
            stages={
                stage: (quantile(buckets, 0.5), quantile(buckets, 0.99))
                for stage in STAGES
                if (buckets := buckets_of(counted, "portrait_stage_seconds", f'stage="{stage}"'))
            },
        )

    async def _send_grpc(self, started: asyncio.Event) -> None:
        stream = self._client.stream(_paced(self._jpegs), mode=MODES[self._kind.mode], reconnect_seconds=0)
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
            query = {"result": "mask"} if self._kind.mode == "mask only" else {"mode": MODES[self._kind.mode]}
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
    """Pictures that were encoded before: what is measured is the box, and this side must keep up with many."""

    kind = "video"

    def __init__(self, packets: Sequence[Any]) -> None:
        super().__init__()
        self._packets, self._sent, self._began = packets, 0, 0.0

    async def recv(self) -> Any:
        """The next one when it is due."""
        loop = asyncio.get_running_loop()
        self._began = self._began or loop.time()
        await asyncio.sleep(self._began + self._sent / RATE - loop.time())
        packet = self._packets[self._sent % len(self._packets)]
        packet.pts, packet.time_base = 3000 * self._sent, Fraction(1, 90_000)
        self._sent += 1
        return packet


def _packets(width: int, height: int) -> list[Any]:
    """VP8, beginning with a key frame, which every round begins with."""
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
