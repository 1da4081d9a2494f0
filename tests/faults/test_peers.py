"""Peers that send nothing, nonsense, too much, too seldom or too often: they cost themselves only."""

import asyncio
import random
import time
from asyncio import timeout
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import pytest
from aiortc import MediaStreamTrack
from aiortc.codecs.vpx import Vp8Encoder

from portrait.image.frame import Frame, Mask
from portrait.server.app import RunningService, run_service
from portrait.settings import Settings
from tests.fakes import FakeModel, full_mask
from tests.faults.troubles import instead_of_the_embedded
from tests.people import Clip, clip, room
from tests.rtc import SIZE, Camera, Viewer, viewer
from tests.timing import at_most

pytestmark = pytest.mark.usefixtures("no_sockets_left")


@pytest.fixture(scope="module")
def shown() -> Clip:
    return clip(*SIZE, 30)


@pytest.fixture
def settings() -> Settings:
    return Settings(
        http_port=0, grpc_port=0, media_ports="0-0", max_sessions=4, drain_seconds=0.0, idle_seconds=3.0, cpu_share=0.0,
        quality_steps=0,
    )  # fmt: skip


class Rate(MediaStreamTrack):
    """One picture at so many frames per second, for ever."""

    kind = "video"

    def __init__(self, rate: float, size: tuple[int, int] = SIZE) -> None:
        super().__init__()
        self._rate, self.sent = rate, 0
        self._picture = av.VideoFrame.from_ndarray(room(*size), format="bgr24").reformat(format="yuv420p")

    async def recv(self) -> av.VideoFrame:
        await asyncio.sleep(1 / self._rate)
        frame = av.VideoFrame.from_ndarray(self._picture.to_ndarray(), format="yuv420p")
        frame.pts, frame.time_base = round(90_000 * self.sent / self._rate), Fraction(1, 90_000)
        self.sent += 1
        return frame


@dataclass
class Neighbour:
    """A client whose stream runs beside the trouble and is checked all the time."""

    viewer: Viewer
    frames: int = 0

    async def watch(self) -> None:
        while True:
            await self.viewer.frame()
            self.frames += 1

    async def goes_on(self) -> None:
        """Wait for a second of its pictures."""
        before = self.frames
        async with timeout(60):
            while self.frames < before + 15:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def neighbour(url: str, shown: Clip) -> AsyncIterator[Neighbour]:
    """A neighbour for the length of the block, whose stream must live to its end."""
    async with viewer(url, Camera(shown)) as one:
        await one.connect(mode="color")
        beside = Neighbour(one)
        watching = asyncio.create_task(beside.watch())
        try:
            yield beside
            await beside.goes_on()
            numbers = await one.numbers()
            assert numbers["frames_failed"] == numbers["frames_refused"] == 0
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


def at(service: RunningService) -> str:
    return f"http://127.0.0.1:{service.http_port}"


async def gone(one: Viewer) -> None:
    """Wait until its session has ended."""
    async with timeout(60):
        while True:
            async with one.http.get(one.location) as response:
                if response.status == 404:
                    return
            await asyncio.sleep(0.05)


async def test_a_peer_that_connects_and_sends_no_rtp_is_ended_when_it_is_idle(
    service: RunningService, shown: Clip
) -> None:
    class Mute(Camera):
        async def recv(self) -> Any:
            await asyncio.Event().wait()

    async with neighbour(at(service), shown) as beside, viewer(at(service), Mute(shown)) as mute:
        await mute.connect()
        await gone(mute)
        await beside.goes_on()


class Garbage(Vp8Encoder):
    """Sends whole RTP packets, encrypted as they should be, of which the first `bad` pictures are no VP8."""

    bad = 20

    def __init__(self) -> None:
        super().__init__()
        self._dice, self._frames = random.Random(1), 0

    def encode(self, frame: Any, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        payloads, timestamp = super().encode(frame, force_keyframe or self._frames == self.bad)
        self._frames += 1
        if self._frames <= self.bad:
            payloads = [self._dice.randbytes(self._dice.randrange(1, 1200)) for _ in payloads]
        return payloads, timestamp


async def test_garbage_in_encrypted_rtp_is_thrown_away_and_pictures_are_shown_again(
    service: RunningService, shown: Clip
) -> None:
    async with neighbour(at(service), shown) as beside, viewer(at(service), Camera(shown)) as one:
        (sender,) = one.pc.getSenders()
        sender._RTCRtpSender__encoder = Garbage()
        await one.connect(mode="color")
        await beside.goes_on()
        await one.frame()
        numbers = await one.numbers()
        assert numbers["frames_failed"] == 0


async def test_garbage_on_the_media_port_is_thrown_away(service: RunningService, shown: Clip) -> None:
    """From the peer's own socket, and from a stranger's: STUN, DTLS, RTP and RTCP by their first byte (RFC 7983)."""
    dice = random.Random(2)
    async with neighbour(at(service), shown) as beside, viewer(at(service), Camera(shown)) as one:
        await one.connect(mode="color")
        await one.frame()
        (pair,) = one.pc.getTransceivers()[0].sender.transport.transport._connection._nominated.values()
        loop = asyncio.get_running_loop()
        stranger, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=pair.remote_addr)
        try:
            for number in range(2000):
                first = (0, 1, 20, 23, 63, 128, 129, 143, 191, 255)[number % 10]
                data = bytes([first]) + dice.randbytes(dice.randrange(1400))
                pair.protocol.transport.sendto(data, pair.remote_addr)
                stranger.sendto(data)
                if number % 50 == 0:
                    await asyncio.sleep(0.01)
            for _ in range(15):
                await one.frame()
        finally:
            stranger.close()
        await beside.goes_on()


async def test_a_4k_camera_is_refused_frame_by_frame_and_its_neighbour_goes_on(
    service: RunningService, shown: Clip
) -> None:
    async with neighbour(at(service), shown) as beside, viewer(at(service), Rate(5, (3840, 2160))) as large:
        await large.connect(mode="color")
        async with timeout(60):
            while not (numbers := await large.numbers())["frames_refused"]:
                await asyncio.sleep(0.1)
        assert numbers["frames_done"] == 0
        await beside.goes_on()


async def test_one_frame_per_second_is_a_stream_like_any_other(service: RunningService, shown: Clip) -> None:
    async with viewer(at(service), Rate(1)) as slow:
        await slow.connect(mode="color")
        for _ in range(3):
            await slow.frame()
        numbers = await slow.numbers()
    assert numbers["frames_dropped"] == numbers["frames_refused"] == 0


@pytest.mark.timing
async def test_240_frames_per_second_wait_for_nobody(settings: Settings, shown: Clip) -> None:
    """The newest is worked on, the rest is counted, and results stay young."""
    camera = Rate(240, (160, 120))

    def busy(frame: Frame) -> Mask:
        """The network of a box that takes five frames of this camera for one of its masks."""
        begun = camera.sent
        while frame.width == 160 and camera.sent < begun + 5 and camera.readyState == "live":
            time.sleep(1 / 240)
        return full_mask(frame)

    with instead_of_the_embedded(FakeModel(busy)):
        async with (
            run_service(settings) as running,
            neighbour(at(running), shown) as beside,
            viewer(at(running), camera) as fast,
        ):
            await fast.connect(mode="color")
            async with timeout(60):
                while (numbers := await fast.numbers())["frames_dropped"] < 100:
                    await fast.frame()
            at_most("age of a result, seconds", numbers["latency_seconds"], 1.0)
            assert numbers["frames_done"] > 0
            await beside.goes_on()


async def test_none_of_them_leaves_anything_behind(settings: Settings, shown: Clip) -> None:
    async with run_service(settings) as running:
        for camera in (Rate(240), Rate(1), Rate(5, (2560, 1440))):
            async with viewer(at(running), camera) as one:
                await one.connect()
                async with timeout(60):
                    while not (numbers := await one.numbers())["frames_done"] and not numbers["frames_refused"]:
                        await asyncio.sleep(0.05)
            assert await running.sessions.wait_closed(60)
