"""The WebRTC transport: signalling over HTTP, one peer connection per session."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from portrait.backgrounds import Backgrounds
from portrait.compositors import Options
from portrait.errors import BadOffer
from portrait.sessions import Sessions
from portrait.transports.webrtc import realtime
from portrait.transports.webrtc.addresses import advertise, media_ports
from portrait.transports.webrtc.codec import VideoCodec
from portrait.transports.webrtc.peer import Peer

logger = logging.getLogger(__name__)

PEER = "webrtc-peer"

MAX_SDP = 64 * 1024
"""Bytes of an offer; a browser's has some 6 KB."""


class WebRTC:
    """The signalling route and the peers that came of it. Opened by `serve_webrtc`."""

    def __init__(
        self,
        sessions: Sessions,
        backgrounds: Backgrounds,
        *,
        max_frame_pixels: int,
        idle_seconds: float,
        advertised: Sequence[str],
    ) -> None:
        self._sessions, self._backgrounds, self._advertised = sessions, backgrounds, advertised
        self._max_frame_pixels, self._idle_seconds = max_frame_pixels, idle_seconds
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def routes(self) -> list[web.RouteDef]:
        """What the HTTP server shall serve."""
        return [web.post("/webrtc", self._post)]

    async def close(self) -> None:
        """Close every connection and wait for it."""
        for task in self._tasks:
            if task.get_name() == PEER:
                task.cancel()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _post(self, request: web.Request) -> web.Response:
        """SDP offer in; 201, SDP answer and Location out."""
        if request.content_type not in ("application/sdp", "application/octet-stream"):
            raise web.HTTPUnsupportedMediaType(text=f"{request.content_type} came; expected application/sdp")
        body = await request.content.read(MAX_SDP + 1)
        if len(body) > MAX_SDP:
            raise BadOffer("sdp", f"more than {MAX_SDP} bytes")
        query = request.query
        background = None
        if name := query.get("background"):
            background = await asyncio.to_thread(self._backgrounds.pick, name)
        options = Options(query.get("mode", "blur"), query.get("color", Options().color), background)
        session_id, answer = await self._open(body.decode("utf-8", "replace"), options, query.get("model"))
        location = f"/v1/sessions/{session_id}"
        return web.Response(status=201, text=answer, content_type="application/sdp", headers={"Location": location})

    async def _open(self, offer: str, options: Options, model: str | None) -> tuple[str, str]:
        answered: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
        task = self._start(self._run(offer, options, model, answered), PEER)
        try:
            await asyncio.wait((task, answered), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not answered.done():
            await task  # it ended without an answer: raises why
        return answered.result()

    async def _run(
        self, offer: str, options: Options, model: str | None, answered: asyncio.Future[tuple[str, str]]
    ) -> None:
        codec = VideoCodec(self._max_frame_pixels)
        async with self._sessions.open("webrtc", codec, options, model) as session:
            peer = Peer(session, self._idle_seconds)
            try:
                answered.set_result((session.id, advertise(await peer.answer(offer), self._advertised)))
                await peer.run()
            finally:
                # A task of its own: cancelled half-way, aiortc would leave its sockets open.
                await asyncio.shield(self._start(peer.close(), "webrtc-close"))

    def _start(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task that is held here until it is done: the loop keeps only weak references."""
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


@asynccontextmanager
async def serve_webrtc(
    sessions: Sessions,
    backgrounds: Backgrounds,
    *,
    max_frame_pixels: int,
    idle_seconds: float,
    ports: range = range(0),
    advertised: Sequence[str] = (),
) -> AsyncIterator[WebRTC]:
    """The transport for the length of the block.

    Media arrives on UDP `ports` (an empty range: any), on the machine's addresses; `advertised` are further ones it is
    reached by.
    """
    realtime.install()
    webrtc = WebRTC(
        sessions, backgrounds, max_frame_pixels=max_frame_pixels, idle_seconds=idle_seconds, advertised=advertised
    )
    with media_ports(asyncio.get_running_loop(), ports):
        try:
            yield webrtc
        finally:
            await webrtc.close()
