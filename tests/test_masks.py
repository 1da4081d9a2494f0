"""Masks for clients that compose by themselves: as a video, and on a data channel."""

import asyncio
import struct
import zlib
from asyncio import timeout

import cv2
import numpy as np
import pytest
from aiortc import RTCDataChannel

from portrait.client import Client
from portrait.image.frame import Frame, Mask
from portrait.server.app import RunningService
from portrait.transports.webrtc.mask_channel import MAX_BYTES, MaskMessage
from tests.fakes import FakeModel, failing, full_mask
from tests.people import Array, Clip, clip, iou
from tests.rtc import SIZE, Camera, Viewer, fake_service, viewer

pytestmark = pytest.mark.usefixtures("no_sockets_left")

UNRELIABLE = {"ordered": False, "maxRetransmits": 0}


@pytest.fixture(scope="module")
def shown() -> Clip:
    return clip(*SIZE, 30)


def unpack(message: bytes) -> tuple[int, Array]:
    """(RTP timestamp, mask of 0 and 255) by docs/reference/protocol.md."""
    version, width, height, timestamp = struct.unpack("!BxHHxxI", message[:12])
    assert version == 1
    rows = np.frombuffer(zlib.decompress(message[12:]), np.uint8).reshape(height, (width + 7) // 8)
    return timestamp, np.asarray(255 * np.unpackbits(rows, axis=1, count=width), np.uint8)


class Masks:
    """What arrives on the channel `masks` of a viewer that only sends its camera."""

    def __init__(self, one: Viewer, camera: Camera) -> None:
        one.pc.addTransceiver(camera, direction="sendonly")
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        self.channel: RTCDataChannel = one.pc.createDataChannel("masks", ordered=False, maxRetransmits=0)
        self.channel.on("message", self.messages.put_nowait)

    async def get(self) -> tuple[int, Array]:
        async with timeout(60):
            return unpack(await self.messages.get())


def counting(frame: Frame) -> Mask:
    """The more rows of person the higher the counter in the picture."""
    values = np.zeros((192, 192), np.uint8)
    values[: 32 + 4 * counted(frame.y)] = 255
    values[:, :96] = 255  # somebody who fills the picture: it is looked at as a whole
    return Mask(values)


def count_of(mask: Array) -> int:
    """The counter in the picture a mask was made of; bringing it to the picture's edges may cost it a row."""
    return round((np.count_nonzero(mask[:, -4] > 127) * 192 / len(mask) - 32) / 4)


def counters() -> FakeModel:
    """A model of the embedded one's size that reads the counter."""
    model = FakeModel(counting)
    model.width = model.height = 192
    return model


def counted(luma: Array) -> int:
    """The number drawn by `numbered`, five bits high."""
    return sum(int(luma[8:24, 8 + 32 * bit : 24 + 32 * bit].mean() > 128) << bit for bit in range(5))


def numbered() -> Clip:
    """Thirty grey frames, each with its number in its picture."""
    frames = []
    for number in range(30):
        picture = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
        for bit in range(5):
            picture[:32, 32 * bit : 32 * (bit + 1)] = 235 if number >> bit & 1 else 16
        frames.append(picture)
    return Clip(frames, [])


def number_of(timestamp: int) -> int:
    """Which frame of `numbered` a camera of tests/rtc.py sent at that RTP time."""
    return (timestamp // 3000) % 30


async def test_every_mask_on_the_channel_names_the_frame_it_was_made_of() -> None:
    async with fake_service(counters()) as (url, _), viewer(url) as one:
        masks = Masks(one, Camera(numbered()))
        await one.connect(result="data")
        for _ in range(40):
            timestamp, mask = await masks.get()
            assert count_of(mask) == number_of(timestamp)


@pytest.mark.parametrize("result", ["mask", "composite"])
async def test_every_picture_that_comes_back_has_the_rtp_timestamp_of_its_frame(result: str) -> None:
    mode = {"mask": "mask", "composite": "color"}[result]
    async with fake_service(counters()) as (url, _), viewer(url, Camera(numbered())) as one:
        await one.connect(result=result, mode=mode, color="#000000")
        for _ in range(40):
            frame = await one.frame()
            assert frame.pts is not None
            luma = np.asarray(frame.to_ndarray(format="gray"), np.uint8)
            shown = luma if result == "mask" else np.where(luma > 50, 255, 0).astype(np.uint8)
            assert count_of(shown) == number_of(frame.pts)


async def test_channel_track_and_grpc_give_the_same_mask(service: RunningService, shown: Clip) -> None:
    """A person who sits still, so that every way sees the same picture but for the camera's encoder."""
    url, still = f"http://127.0.0.1:{service.http_port}", Clip(shown.frames[:1], shown.masks[:1])
    async with Client(f"127.0.0.1:{service.grpc_port}") as client:
        frames = [cv2.cvtColor(still.frames[0], cv2.COLOR_BGR2RGB)] * 20
        *_, by_grpc = [reply.array async for reply in client.stream(frames, mode="mask", every_frame=True)]
    async with viewer(url) as one, viewer(url, Camera(still)) as two:
        masks = Masks(one, Camera(still))
        await one.connect(result="data")
        await two.connect(result="mask")
        for _ in range(20):
            _, by_channel = await masks.get()
            by_track = (await two.picture())[..., 0]
    assert by_channel.shape == by_track.shape == by_grpc.shape
    assert iou(by_grpc, by_channel) > 0.96
    assert iou(by_track, by_channel) > 0.96
    truth = np.asarray(cv2.resize(still.masks[0], by_channel.shape[::-1]), np.uint8)
    assert iou(truth, by_channel) > 0.85


@pytest.mark.parametrize("side", [32, 192, 256])
def test_the_raggedest_mask_fits_a_message(side: int) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (side, side), np.uint8)
    message = MaskMessage.of(Mask(noise), 2**32 - 1).pack()
    assert len(message) <= MAX_BYTES
    timestamp, mask = unpack(message)
    step = side // len(mask)
    assert timestamp == 2**32 - 1
    assert (mask == np.where(noise[::step, ::step] >= 128, 255, 0)).all()


def test_the_mask_of_a_person_fits_one_packet(shown: Clip) -> None:
    small = np.asarray(cv2.resize(shown.masks[0], (192, 192)), np.uint8)
    assert len(MaskMessage.of(Mask(small), 0).pack()) < 1100


async def test_a_failing_network_sends_an_empty_mask(shown: Clip) -> None:
    async with fake_service(FakeModel(failing)) as (url, _), viewer(url) as one:
        masks = Masks(one, Camera(shown))
        await one.connect(result="data")
        for _ in range(5):
            assert not (await masks.get())[1].any()


async def test_without_a_channel_frames_are_dropped_and_counted(shown: Clip) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), viewer(url) as one:
        masks = Masks(one, Camera(shown))
        await one.connect(result="data")
        await masks.get()
        masks.channel.close()
        async with timeout(60):
            while (await one.numbers())["frames_dropped"] == 0:
                await asyncio.sleep(0.05)


async def test_channels_of_other_names_are_closed(shown: Clip) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), viewer(url) as one:
        other = one.pc.createDataChannel("sound")
        masks = Masks(one, Camera(shown))
        await one.connect(result="data")
        await masks.get()
        async with timeout(60):
            while other.readyState != "closed":
                await asyncio.sleep(0.05)


async def test_a_channel_that_is_not_offered_and_a_mode_that_is_not_the_boxs_are_refused(shown: Clip) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, sessions), viewer(url, Camera(shown)) as one:
        offer = await one.offer()
        response = await one.post(offer, result="data")
        assert (response.status, (await response.json())["title"]) == (400, "BAD_OFFER")
        for result in ("mask", "data"):
            response = await one.post(offer, result=result, mode="blur")
            document = await response.json()
            assert (response.status, document["title"]) == (400, "BAD_OPTION")
            assert "cannot carry 'blur'; expected one of ['mask']" in document["detail"]
        assert await sessions.drain(60) == 0
