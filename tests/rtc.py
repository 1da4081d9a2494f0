"""A browser's part in WebRTC, played by aiortc, and a service around a fake network."""

import asyncio
from asyncio import timeout
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from fractions import Fraction

import aiohttp
import av
import numpy as np
from aiohttp import web
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from portrait.admission.capacity import Capacity, Limits
from portrait.admission.cost_model import CostModel
from portrait.admission.quality import Quality
from portrait.image.backgrounds import Backgrounds
from portrait.metrics import Metrics
from portrait.sessions.registry import Sessions
from portrait.transports.http.config import HttpConfig
from portrait.transports.http.routes import HttpRoutes
from portrait.transports.http.server import serve_http
from portrait.transports.webrtc.config import WebRTCConfig
from portrait.transports.webrtc.server import serve_webrtc
from portrait.transports.webrtc.turn import IceServers
from portrait.workers.shared_state import SharedState
from tests.calls import budget_of
from tests.fakes import FakeModel, only
from tests.people import Array, Clip

SIZE = (320, 240)


class Camera(MediaStreamTrack):
    """Plays a clip again and again at 30 frames per second, until it is stopped."""

    kind = "video"

    def __init__(self, shown: Clip) -> None:
        super().__init__()
        self.shown, self.sent = shown, 0

    async def recv(self) -> av.VideoFrame:
        await asyncio.sleep(1 / 30)
        frame = av.VideoFrame.from_ndarray(self.shown.frames[self.sent % len(self.shown.frames)], format="bgr24")
        frame.pts, frame.time_base = 3000 * self.sent, Fraction(1, 90_000)
        self.sent += 1
        return frame.reformat(format="yuv420p")


class Viewer:
    """A browser's part: offers a camera, takes the result."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url, self.http = url, http
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.result: asyncio.Future[MediaStreamTrack] = asyncio.get_running_loop().create_future()
        self.pc.on("track", self._on_track)
        self.location = self.etag = ""

    def _on_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "video":
            self.result.set_result(track)

    async def offer(self) -> str:
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return str(self.pc.localDescription.sdp)

    async def post(self, offer: str, path: str = "/webrtc", **query: str) -> aiohttp.ClientResponse:
        headers = {"Content-Type": "application/sdp"}
        return await self.http.post(f"{self.url}{path}", params=query, data=offer, headers=headers)

    async def connect(self, path: str = "/webrtc", **query: str) -> None:
        response = await self.post(await self.offer(), path, **query)
        assert response.status == 201, await response.text()
        assert response.content_type == "application/sdp"
        self.location, self.etag = self.url + response.headers["Location"], response.headers["ETag"]
        await self.take(await response.text())

    async def take(self, answer: str) -> None:
        await self.pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def frame(self) -> av.VideoFrame:
        async with timeout(60):
            track = await self.result
            frame = await track.recv()
        assert isinstance(frame, av.VideoFrame)
        return frame

    async def picture(self) -> Array:
        return np.asarray((await self.frame()).to_ndarray(format="bgr24"), np.uint8)

    async def until(self, wanted: Callable[[Array], bool]) -> Array:
        """The first picture that is as wanted; fails after twenty seconds of others."""
        async with timeout(60):
            while True:
                if wanted(picture := await self.picture()):
                    return picture

    async def numbers(self) -> dict[str, object]:
        async with self.http.get(self.location) as response:
            assert response.status == 200
            document: dict[str, object] = await response.json()
            return document


@asynccontextmanager
async def viewer(url: str, *tracks: MediaStreamTrack) -> AsyncIterator[Viewer]:
    async with aiohttp.ClientSession() as http:
        one = Viewer(url, http)
        for track in tracks:
            one.pc.addTrack(track)
        try:
            yield one
        finally:
            await hang_up(one.pc)


async def hang_up(pc: RTCPeerConnection) -> None:
    """Close it. When its sockets were closed before, it may wait forever: then its transports are stopped."""
    closing = asyncio.ensure_future(pc.close())
    await asyncio.wait([closing], timeout=10)
    if closing.done():
        closing.result()
    else:
        closing.cancel()
        transports = pc._RTCPeerConnection__iceTransports  # type: ignore[attr-defined]
        stopping = asyncio.gather(*(transport.stop() for transport in list(transports)), return_exceptions=True)
        await asyncio.wait([stopping], timeout=5)


@asynccontextmanager
async def fake_service(
    model: FakeModel,
    idle_seconds: float = 20.0,
    max_frame_pixels: int = 10**6,
    ports: range = range(0),
    advertised: Sequence[str] = (),
    max_viewers: int = 8,
    ice: IceServers | None = None,
    origins: Sequence[str] = (),
    costs: CostModel | None = None,
) -> AsyncIterator[tuple[str, Sessions]]:
    """Real signalling and media around a fake network; with `costs`, on a twentieth of a core."""
    metrics, backgrounds, shared = Metrics(), Backgrounds(), SharedState()
    limits = Limits(budget=0.05, share=1.0, lowest=Quality.FULL)
    capacity = Capacity(costs, shared, metrics, limits) if costs is not None else None
    async with (
        Sessions(only(model), 4, metrics, shared, capacity) as sessions,
        budget_of(10**6) as budget,
        serve_webrtc(
            sessions,
            backgrounds,
            WebRTCConfig(
                max_frame_pixels,
                idle_seconds,
                None if ports else 0,
                ports,
                tuple(advertised),
                max_viewers,
                ice or IceServers(),
            ),
        ) as webrtc,
    ):
        routes: list[web.RouteDef] = [
            *HttpRoutes(sessions, backgrounds, budget, metrics.expose, lambda: True, webrtc.patches).routes,
            *webrtc.routes,
        ]
        config = HttpConfig("127.0.0.1", 0, 2**20, 10**6, tuple(origins))
        async with serve_http(routes, config, metrics=metrics) as port:
            yield f"http://127.0.0.1:{port}", sessions
