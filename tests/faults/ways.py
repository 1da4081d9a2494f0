"""Clients that search everything they get for the watermark, each over a way of its own, until they have enough.

Their camera changes its size, they switch the mode, and begin again whenever their session ends.
"""

import asyncio
import itertools
import time
from asyncio import timeout
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any

import aiohttp
import av
import cv2
import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from portrait.client import Client, ClientError, Picture
from portrait.v1 import segmentation_pb2 as pb
from tests.people import Array
from tests.rtc import Viewer, viewer
from tests.watermark import READABLE, Scene, Search, planes_of, split

SIZES = ((320, 240), (240, 320), (256, 144), (480, 272))
SIZE_EVERY = 30
"""Frames of one size, then comes the next."""

MODES: tuple[dict[str, Any], ...] = (
    {"mode": "blur"},
    {"mode": "color", "color": "#00b140"},
    {"mode": "image", "background": "office"},
)
MODE_SECONDS = 0.7


HIDING_MODES: tuple[dict[str, Any], ...] = (
    {"mode": "silhouette", "color": "#00b140"},
    {"mode": "pixelate"},
    {"mode": "blur-person"},
)


@cache
def scene(size: tuple[int, int], worn: bool = False) -> Scene:
    return Scene(*size, worn)


@cache
def search(size: tuple[int, int], on_person: bool = False) -> Search:
    return Search(scene(size, on_person), on_person=on_person)


@dataclass
class Found:
    """What a search has seen: with `hides` of the person, in the modes that hide them, else of the room."""

    way: str
    wanted: int
    hides: bool = False
    frames: int = 0
    opened: int = 0
    """Those in which what may be shown is shown, the person or the room: the others are closed."""
    leaks: int = 0
    strongest: float = 0.0
    sessions: int = 0
    ends: set[str] = field(default_factory=set)
    sizes: set[tuple[int, int]] = field(default_factory=set)

    @property
    def done(self) -> bool:
        return self.frames >= self.wanted

    def note(self, planes: tuple[Array, Array, Array]) -> None:
        height, width = planes[0].shape
        strongest = search((width, height), self.hides).strongest(planes)
        self.frames += 1
        self.sizes.add((width, height))
        self.leaks += strongest >= READABLE
        self.strongest = max(self.strongest, strongest)
        self.opened += shows_room(planes) if self.hides else shows_person(planes[0])

    @property
    def modes(self) -> tuple[dict[str, Any], ...]:
        return HIDING_MODES if self.hides else MODES

    def report(self) -> dict[str, Any]:
        """In numbers."""
        return {
            "way": self.way, "frames": self.frames, "opened": self.opened, "leaks": self.leaks,
            "strongest": round(self.strongest, 4), "sessions": self.sessions, "ends": sorted(self.ends),
            "sizes": len(self.sizes),
        }  # fmt: skip


def shows_person(luma: Array) -> bool:
    """Whether the face is there, with its contrast; a blurred or plain picture has none."""
    height, width = luma.shape
    truth = scene((width, height)).mask > 0
    rows, columns = np.flatnonzero(truth.any(axis=1)), np.flatnonzero(truth.any(axis=0))
    face = luma[rows[0] : rows[0] + height // 3, columns[0] : columns[-1]].astype(np.float32)
    return float((face - cv2.blur(face, (15, 15))).std()) > 8


def shows_room(planes: tuple[Array, Array, Array]) -> bool:
    """Whether the room is there, with its furniture and its noise: a blurred picture has neither."""
    height, width = planes[0].shape
    return detail(planes[0]) > 0.4 * scene_detail((width, height))


@cache
def scene_detail(size: tuple[int, int]) -> float:
    return detail(planes_of(scene(size, worn=True).image)[0])


def detail(luma: Array) -> float:
    """How much a pixel of the upper corners, where no person is, differs from the one beside it."""
    height, width = luma.shape
    corners = luma[: height // 3, : width // 6], luma[: height // 3, -width // 6 :]
    return float(np.mean([np.abs(np.diff(corner.astype(int), axis=1)).mean() for corner in corners]))


class MarkedCamera(MediaStreamTrack):
    """The scene at 30 frames per second, in every size by turns."""

    kind = "video"

    def __init__(self, before: int, worn: bool = False) -> None:
        """`before` frames were seen of earlier cameras: it continues with the size that comes then."""
        super().__init__()
        self._before, self._worn, self._sent = before, worn, 0
        self._began = time.monotonic()

    async def recv(self) -> av.VideoFrame:
        await asyncio.sleep(max(0.0, self._began + self._sent / 30 - time.monotonic()))
        number = self._before + self._sent
        image = scene(SIZES[number // SIZE_EVERY % len(SIZES)], self._worn).image
        frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")
        # By the clock: a camera that is kept from sending skips frames, it does not send them later.
        self._sent = max(self._sent + 1, round(30 * (time.monotonic() - self._began)))
        frame.pts, frame.time_base = 3000 * self._sent, Fraction(1, 90_000)
        return frame


async def over_loopback(url: str, found: Found) -> None:
    """Camera up and result down in one connection."""
    while not found.done:
        async with viewer(url, MarkedCamera(found.frames, found.hides)) as one:
            await _connect(one, "/webrtc", **found.modes[found.sessions % len(found.modes)])
            found.sessions += 1
            await _watch(one, one, found)


async def over_whip(url: str, found: Found) -> None:
    """A publisher, and a viewer of what becomes of it."""
    while not found.done:
        async with viewer(url) as publisher, viewer(url) as watcher:
            publisher.pc.addTransceiver(MarkedCamera(found.frames, found.hides), direction="sendonly")
            stream = "hidden" if found.hides else "room"
            await _connect(publisher, f"/whip/{stream}", **found.modes[found.sessions % len(found.modes)])
            found.sessions += 1
            watcher.pc.addTransceiver("video", direction="recvonly")
            await _connect(watcher, f"/whep/{stream}")
            await _watch(watcher, publisher, found)


async def _connect(one: Viewer, path: str, **query: str) -> None:
    """As a client does whose server may be on its way up: again until it is taken."""
    offer = await one.offer()
    async with timeout(60):
        while True:
            with suppress(aiohttp.ClientError):
                answer = await one.post(offer, path, **query)
                if answer.status == 201:
                    one.location = one.url + answer.headers["Location"]
                    return await one.take(await answer.text())
                assert answer.status in (409, 503), await answer.text()
            await asyncio.sleep(0.1)


async def _watch(viewing: Viewer, held: Viewer, found: Found) -> None:
    """Search what one gets while the mode of the other's session is switched, until it ends."""
    switching = asyncio.create_task(_switch(held, found.modes))
    ended = asyncio.create_task(_ended(held))
    try:
        while not found.done and not ended.done():
            frame = asyncio.create_task(viewing.frame())
            await asyncio.wait({frame, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not frame.done():
                frame.cancel()
                break
            with suppress(MediaStreamError):
                picture = frame.result()
                packed = np.asarray(picture.to_ndarray(format="yuv420p"), np.uint8).reshape(-1)
                found.note(split(packed, picture.width, picture.height))
                continue
            break
    finally:
        for task in (switching, ended):
            task.cancel()
        await asyncio.gather(switching, ended, return_exceptions=True)
    if not found.done:
        found.ends.add("the session ended")


async def _switch(held: Viewer, modes: tuple[dict[str, Any], ...]) -> None:
    for mode in itertools.cycle(modes):
        with suppress(aiohttp.ClientError):
            async with held.http.patch(held.location, json=mode) as response:
                assert response.status in (200, 404, 503), await response.text()
        await asyncio.sleep(MODE_SECONDS)


async def _ended(held: Viewer) -> None:
    """Wait until the session is gone, or the worker that had it."""
    with suppress(aiohttp.ClientError):
        status = 200
        while status == 200:
            await asyncio.sleep(0.2)
            async with held.http.get(held.location) as response:
                status = response.status


GRPC_OUTPUTS: tuple[dict[str, Any], ...] = (
    {"mode": "blur"},
    {"mode": "color", "color": "#0000ff"},
    {"mode": "image", "background_name": "dusk"},
    {"mode": "cutout"},
)


async def over_grpc(target: str, found: Found) -> None:
    """A stream that sends every layout and asks for every mode."""
    async with Client(target) as client:
        while not found.done:
            outputs = HIDING_MODES if found.hides else GRPC_OUTPUTS
            output = outputs[found.sessions % len(outputs)]
            try:
                async with client.open_stream(every_frame=True, **output) as stream:
                    found.sessions += 1
                    for number in itertools.count():
                        if found.done:
                            return
                        if number % 20 == 19:
                            await stream.change(outputs[number // 20 % len(outputs)])
                        size = SIZES[found.frames // SIZE_EVERY % len(SIZES)]
                        await stream.send(_layout(size, number % 3, found.hides), number)
                        reply = await stream.receive()
                        assert reply is not None
                        found.note(_planes(reply.picture))
            except ClientError as error:
                found.ends.add(error.reason)


@cache
def _layout(size: tuple[int, int], number: int, worn: bool = False) -> Picture:
    image = scene(size, worn).image
    if number == 0:
        return Picture.jpeg(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes())
    if number == 1:
        return Picture.rgb24(np.asarray(image[..., ::-1], np.uint8))
    return Picture.i420(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420).tobytes(), *size)


def _planes(picture: pb.Picture) -> tuple[Array, Array, Array]:
    data, shape = np.frombuffer(picture.data, np.uint8), (picture.height, picture.width)
    if picture.format == pb.PICTURE_FORMAT_I420:
        return split(data, picture.width, picture.height)
    if picture.format == pb.PICTURE_FORMAT_JPEG:
        return planes_of(_decoded(data))
    if picture.format == pb.PICTURE_FORMAT_RGBA32:
        return planes_of(over_black(data.reshape(*shape, 4)[..., [2, 1, 0, 3]]))
    return planes_of(np.ascontiguousarray(data.reshape(*shape, 3)[..., ::-1]))


def over_black(bgra: Array) -> Array:
    """What is seen of a cutout; under full transparency there must be nothing."""
    assert not bgra[bgra[..., 3] == 0].any(), "pixels under full transparency"
    share = bgra[..., 3:].astype(np.float32) / 255
    return np.asarray(bgra[..., :3] * share, np.uint8)


def _decoded(data: Array) -> Array:
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), np.uint8)


async def over_journey(target: str, found: Found) -> None:
    """The client's own way through what happens: `Client.stream`."""

    async def frames() -> AsyncIterator[Picture]:
        for number in itertools.count():
            await asyncio.sleep(1 / 30)
            yield _layout(SIZES[number // SIZE_EVERY % len(SIZES)], number % 3)

    async with (
        Client(target) as client,
        aclosing(client.stream(frames(), reconnect_seconds=30, mode="color")) as replies,
    ):
        found.sessions += 1
        async for reply in replies:
            assert reply.error is None
            found.note(_planes(reply.picture))
            if found.done:
                return
