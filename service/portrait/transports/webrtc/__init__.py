"""The WebRTC transport: signalling over HTTP, one peer connection per session or viewer."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import Any, TypeAlias, TypedDict

from aiohttp import web

from portrait.backgrounds import Backgrounds
from portrait.compositors import Options
from portrait.errors import BadOffer, BadOption
from portrait.logs import log_event
from portrait.sessions import Sessions
from portrait.transports.webrtc import realtime
from portrait.transports.webrtc.addresses import PORTS, advertise, media_ports
from portrait.transports.webrtc.codec import MaskCodec, StreamCodec, VideoCodec
from portrait.transports.webrtc.connection import Connection
from portrait.transports.webrtc.ice import IceServers
from portrait.transports.webrtc.peer import Peer
from portrait.transports.webrtc.publisher import Publisher
from portrait.transports.webrtc.rate import Rate
from portrait.transports.webrtc.resources import FRAGMENT, SDP, Resources
from portrait.transports.webrtc.streams import OUTPUTS, Streams
from portrait.transports.webrtc.viewer import Viewer

logger = logging.getLogger(__name__)

CONNECTION = "webrtc-connection"

MAX_SDP = 64 * 1024
"""Bytes of an offer; a browser's has some 6 KB."""

CODECS = {"composite": VideoCodec, "mask": MaskCodec}
"""What a loopback may send back."""


class Wishes(TypedDict):
    """What a session is opened with besides its options."""

    model: str | None
    traceparent: str | None


Answered: TypeAlias = asyncio.Future[tuple[str, Connection, str]]
"""Set once with (resource path, connection, SDP answer)."""


class WebRTC:
    """The signalling routes and the connections that came of them. Opened by `serve_webrtc`."""

    def __init__(
        self,
        sessions: Sessions,
        backgrounds: Backgrounds,
        *,
        max_frame_pixels: int,
        idle_seconds: float,
        ports: range,
        advertised: Sequence[str],
        max_viewers: int,
        ice: IceServers,
    ) -> None:
        self._ports = ports
        self._sessions, self._backgrounds, self._advertised, self._ice = sessions, backgrounds, advertised, ice
        self._max_frame_pixels, self._idle_seconds = max_frame_pixels, idle_seconds
        self._streams = Streams(max_viewers, sessions.board)
        self._rate = Rate()
        self.resources = Resources(ice, self._rate)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def routes(self) -> list[web.RouteDef]:
        """What the HTTP server shall serve."""
        return [
            web.post("/webrtc", self._loop_back),
            web.post("/whip/{stream}", self._publish),
            web.post("/whep/{stream}", self._view),
            web.post("/whep/{stream}/{output}", self._view),
            *self.resources.routes,
        ]

    async def close(self) -> None:
        """Close every connection and wait for it."""
        for task in self._tasks:
            if task.get_name() == CONNECTION:
                task.cancel()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _loop_back(self, request: web.Request) -> web.Response:
        offer, options, answered = await self._read_offer(request), await self._options(request), self._future()
        kind = CODECS.get(result := request.query.get("result", "composite"))
        if kind is None:
            raise BadOption("result", f"{result!r} came; expected one of {', '.join(CODECS)}")
        life = self._run_loop(kind(self._max_frame_pixels), offer, options, _wishes(request), answered)
        return await self._answer(life, answered)

    async def _publish(self, request: web.Request) -> web.Response:
        offer, options, answered = await self._read_offer(request), await self._options(request), self._future()
        life = self._run_publisher(request.match_info["stream"], offer, options, _wishes(request), answered)
        return await self._answer(life, answered)

    async def _view(self, request: web.Request) -> web.Response:
        output = request.match_info.get("output", "composite")
        if output not in OUTPUTS:
            raise web.HTTPNotFound(text=f"{output!r} came; expected one of {', '.join(OUTPUTS)}")
        offer, answered = await self._read_offer(request), self._future()
        return await self._answer(self._run_viewer(request.match_info["stream"], output, offer, answered), answered)

    async def _read_offer(self, request: web.Request) -> str:
        self._rate.take(request.remote)
        if request.content_type not in (SDP, "application/octet-stream"):
            raise web.HTTPUnsupportedMediaType(
                text=f"{request.content_type} came; expected {SDP}", headers={"Accept-Post": SDP}
            )
        accepted = request.headers.get("Accept", "*/*")
        if not any(wanted in accepted for wanted in (SDP, "application/*", "*/*")):
            raise web.HTTPNotAcceptable(text=f"{accepted} is accepted; the answer is {SDP}")
        return await _read_body(request)

    async def _options(self, request: web.Request) -> Options:
        query, background = request.query, None
        if name := query.get("background"):
            background = await asyncio.to_thread(self._backgrounds.pick, name)
        return Options(query.get("mode", "blur"), query.get("color", Options().color), background)

    async def _answer(self, life: Coroutine[Any, Any, None], answered: Answered) -> web.Response:
        """201 with the answer of a connection, which lives on in a task of its own."""
        task = self._start(life, CONNECTION)
        try:
            await asyncio.wait((task, answered), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not answered.done():
            await task  # it ended without an answer: raises why
        location, connection, answer = answered.result()
        headers = {"Location": location, "ETag": connection.etag, "Accept-Patch": FRAGMENT}
        answer = advertise(answer, self._advertised)
        response = web.Response(status=201, text=answer, content_type=SDP, headers=headers)
        response.headers.extend([("Link", link) for link in self._ice.links()])
        return response

    async def _run_loop(
        self, codec: VideoCodec, offer: str, options: Options, wishes: Wishes, answered: Answered
    ) -> None:
        async with self._sessions.open("webrtc", codec, options, **wishes) as session:
            peer = Peer(session, self._idle_seconds)
            async with self._connected(peer.connection, session.id, peer.close):
                answered.set_result((f"/v1/sessions/{session.id}", peer.connection, await peer.answer(offer)))
                await peer.run()

    async def _run_publisher(self, name: str, offer: str, options: Options, wishes: Wishes, answered: Answered) -> None:
        with self._streams.publish(name) as stream:
            codec = StreamCodec(self._max_frame_pixels, lambda: stream.wanted)
            async with self._sessions.open("webrtc", codec, options, **wishes) as session:
                publisher = Publisher(session, stream, self._idle_seconds)
                async with self._connected(publisher.connection, session.id, publisher.close):
                    answer = await publisher.answer(offer)
                    answered.set_result((f"/v1/sessions/{session.id}", publisher.connection, answer))
                    await publisher.run(publisher.show())

    async def _run_viewer(self, name: str, output: str, offer: str, answered: Answered) -> None:
        with self._streams.view(name) as stream, stream.watch(output) as slot:
            viewer = Viewer(self._sessions.board.new_id(), stream, output)
            async with self._connected(viewer.connection, viewer.id, viewer.connection.close):
                self.resources.viewers[viewer.id] = viewer
                reason = "not answered, or cut off"
                log_event(logger, logging.INFO, "viewer opened", viewer=viewer.id[:6], stream=name)
                try:
                    answer = await viewer.answer(offer, slot)
                    answered.set_result((f"/v1/viewers/{viewer.id}", viewer.connection, answer))
                    reason = await viewer.run()
                finally:
                    del self.resources.viewers[viewer.id]
                    log_event(logger, logging.INFO, "viewer closed", viewer=viewer.id[:6], reason=reason)

    @asynccontextmanager
    async def _connected(self, connection: Connection, name: str, close: Any) -> AsyncIterator[None]:
        """The connection known by a name for the length of the block, and closed at its end."""
        self.resources.connections[name] = connection
        try:
            yield
        finally:
            del self.resources.connections[name]
            # A task of its own: cancelled half-way, aiortc would leave its sockets open.
            await asyncio.shield(self._start(close(), "webrtc-close"))

    def _start(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task that is held here until it is done: the loop keeps only weak references."""
        context = copy_context()
        context.run(PORTS.set, self._ports)
        task = asyncio.create_task(coroutine, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _future(self) -> Answered:
        return asyncio.get_running_loop().create_future()


def _wishes(request: web.Request) -> Wishes:
    return {"model": request.query.get("model"), "traceparent": request.headers.get("traceparent")}


async def _read_body(request: web.Request) -> str:
    body = b""
    # A single read gives what has come so far, which on a slow line is half an offer.
    while part := await request.content.read(MAX_SDP + 1 - len(body)):
        body += part
        if len(body) > MAX_SDP:
            raise BadOffer("sdp", f"more than {MAX_SDP} bytes")
    return body.decode("utf-8", "replace")


@asynccontextmanager
async def serve_webrtc(
    sessions: Sessions,
    backgrounds: Backgrounds,
    *,
    max_frame_pixels: int,
    idle_seconds: float,
    ports: range = range(0),
    advertised: Sequence[str] = (),
    max_viewers: int = 32,
    ice: IceServers | None = None,
) -> AsyncIterator[WebRTC]:
    """The transport for the length of the block.

    Media arrives on UDP `ports` (an empty range: any), on the machine's addresses; `advertised` are further ones it is
    reached by; clients are told of the servers of `ice`.
    """
    realtime.install()
    webrtc = WebRTC(
        sessions,
        backgrounds,
        max_frame_pixels=max_frame_pixels,
        idle_seconds=idle_seconds,
        ports=ports,
        advertised=advertised,
        max_viewers=max_viewers,
        ice=ice or IceServers(),
    )
    with media_ports(asyncio.get_running_loop(), ports):
        try:
            yield webrtc
        finally:
            await webrtc.close()
