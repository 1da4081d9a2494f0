"""The WebRTC transport: signalling over HTTP, one peer connection per session or viewer."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from contextvars import copy_context
from functools import partial
from typing import Any, TypeAlias, TypedDict

from aiohttp import web

from portrait.core.compositors import Options
from portrait.errors import BadOption, Unauthenticated
from portrait.image.backgrounds import Backgrounds
from portrait.logs import log_event
from portrait.security import Security
from portrait.sessions.registry import Sessions
from portrait.sessions.session import Session
from portrait.transports.webrtc import aiortc_patches
from portrait.transports.webrtc.aiortc_patches import TrackEncoder
from portrait.transports.webrtc.aiortc_patches.media_ports import PORTS, advertise, media_ports
from portrait.transports.webrtc.broadcasts import OUTPUTS, Streams
from portrait.transports.webrtc.codec import DataCodec, LoopCodec, MaskCodec, StreamCodec, VideoCodec
from portrait.transports.webrtc.connection import Connection
from portrait.transports.webrtc.loopback import Peer
from portrait.transports.webrtc.mask_channel import MaskSender
from portrait.transports.webrtc.offer_limits import SDP, Rate, read_offer
from portrait.transports.webrtc.signalling import FRAGMENT, Resources
from portrait.transports.webrtc.turn import IceServers
from portrait.transports.webrtc.uplink import Uplink
from portrait.transports.webrtc.whep import Viewer
from portrait.transports.webrtc.whip import Publisher
from portrait.workers.ids import new_id

logger = logging.getLogger(__name__)

CONNECTION = "webrtc-connection"

LOOPS = ("composite", "mask", "data")
"""What a loopback may send back: a composed video, the mask as a video, or masks on a data channel."""


class Wishes(TypedDict):
    """What a session is opened with besides its options."""

    model: str | None
    traceparent: str | None


Answered: TypeAlias = asyncio.Future[tuple[str, Connection, str]]
"""Set once with (resource path, connection, SDP answer)."""


Life: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


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
        security: Security,
    ) -> None:
        self._ports = ports
        self._sessions, self._backgrounds, self._advertised, self._ice = sessions, backgrounds, advertised, ice
        self._max_frame_pixels, self._idle_seconds = max_frame_pixels, idle_seconds
        self._streams, self._security = Streams(max_viewers, sessions.board), security
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
        offer, answered = await read_offer(request, self._rate), self._future()
        if (result := request.query.get("result", "composite")) not in LOOPS:
            raise BadOption("result", f"{result!r} came; expected one of {', '.join(LOOPS)}")
        options = await self._options(request, "blur" if result == "composite" else "mask")
        life = partial(self._run_loop, result, offer, options, _wishes(request), answered)
        return await self._answer(request, life, answered)

    async def _publish(self, request: web.Request) -> web.Response:
        offer, options, answered = await read_offer(request, self._rate), await self._options(request), self._future()
        life = partial(self._run_publisher, request.match_info["stream"], offer, options, _wishes(request), answered)
        return await self._answer(request, life, answered)

    async def _view(self, request: web.Request) -> web.Response:
        output = request.match_info.get("output", "composite")
        if output not in OUTPUTS:
            raise web.HTTPNotFound(text=f"{output!r} came; expected one of {', '.join(OUTPUTS)}")
        offer, answered = await read_offer(request, self._rate), self._future()
        life = partial(self._run_viewer, request.match_info["stream"], output, offer, answered)
        return await self._answer(request, life, answered)

    async def _options(self, request: web.Request, mode: str = "blur") -> Options:
        query, background = request.query, None
        if name := query.get("background"):
            background = await self._backgrounds.pick(name)
        return Options(mode, background=background).changed(query)

    async def _answer(self, request: web.Request, life: Life, answered: Answered) -> web.Response:
        """201 with the answer of a connection, which lives on in a task of its own."""
        task = self._start(self._hold(life, request.headers.get("Authorization")), CONNECTION)
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

    async def _hold(self, life: Life, authorization: str | None) -> None:
        """A connection's life. It ends with the credentials that opened it."""
        task = asyncio.current_task()
        assert task is not None

        def end(error: Unauthenticated) -> None:
            log_event(logger, logging.INFO, "connection closed", reason=str(error))
            task.cancel()

        async with self._security.holding(authorization, end):
            await life()

    async def _run_loop(self, result: str, offer: str, options: Options, wishes: Wishes, answered: Answered) -> None:
        codec, make_uplink = _loop(result, self._max_frame_pixels)
        async with self._sessions.open("webrtc", codec, options, **wishes) as session:
            peer = make_uplink(session, self._idle_seconds)
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
            viewer = Viewer(new_id(self._sessions.board.index), stream, output)
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
        task = context.run(asyncio.create_task, coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _future(self) -> Answered:
        return asyncio.get_running_loop().create_future()


def _loop(result: str, max_pixels: int) -> tuple[VideoCodec, Callable[[Session[Any, Any], float], Uplink[Any]]]:
    """What a session needs to send `result` back: its codec, and the connection it is carried by."""
    if result == "data":
        return DataCodec(max_pixels), MaskSender
    encoder = TrackEncoder()
    make_codec = MaskCodec if result == "mask" else LoopCodec
    return make_codec(max_pixels, encoder), partial(Peer, encoder=encoder)


def _wishes(request: web.Request) -> Wishes:
    return {"model": request.query.get("model"), "traceparent": request.headers.get("traceparent")}


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
    security: Security | None = None,
) -> AsyncIterator[WebRTC]:
    """The transport for the length of the block. Without `security` connections last as long as they like.

    Media arrives on UDP `ports` (an empty range: any), on the machine's addresses; `advertised` are further ones it is
    reached by; clients are told of the servers of `ice`.
    """
    aiortc_patches.install()
    webrtc = WebRTC(
        sessions,
        backgrounds,
        max_frame_pixels=max_frame_pixels,
        idle_seconds=idle_seconds,
        ports=ports,
        advertised=advertised,
        max_viewers=max_viewers,
        ice=ice or IceServers(),
        security=security or Security.allow_all(),
    )
    with media_ports(asyncio.get_running_loop(), ports):
        try:
            yield webrtc
        finally:
            await webrtc.close()
