"""The WebRTC transport: signalling over HTTP, and one peer connection per session or viewer."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any, TypeAlias, TypedDict

from aiohttp import web

from portrait.core.compositors import Options
from portrait.errors import BadOption, Unauthenticated
from portrait.image.backgrounds import Backgrounds
from portrait.logs import log_event
from portrait.metrics import Metrics
from portrait.security import Security
from portrait.sessions.broadcasts import VIDEOS, Broadcast, Broadcasts
from portrait.sessions.registry import Sessions
from portrait.sessions.session import Session
from portrait.transports.webrtc import aiortc_patches
from portrait.transports.webrtc.aiortc_patches.media_ports import PORTS, OwnPorts, advertise, media_ports
from portrait.transports.webrtc.aiortc_patches.shared_port import SharedPort
from portrait.transports.webrtc.aiortc_patches.tcp_port import TcpPort
from portrait.transports.webrtc.aiortc_patches.video_codecs import PictureEncoder
from portrait.transports.webrtc.codec import BroadcastCodec, LoopbackCodec, MaskCodec, MaskMessageCodec
from portrait.transports.webrtc.config import WebRTCConfig
from portrait.transports.webrtc.connection import Connection
from portrait.transports.webrtc.encodings import Encodings
from portrait.transports.webrtc.mask_channel import MaskSender
from portrait.transports.webrtc.offer_limits import SDP, Rate, read_offer
from portrait.transports.webrtc.signalling import FRAGMENT, OpenConnections
from portrait.transports.webrtc.uplink import Loopback, Uplink
from portrait.transports.webrtc.whep import Viewer
from portrait.transports.webrtc.whip import Publisher

logger = logging.getLogger(__name__)

CONNECTION = "webrtc-connection"

RESULTS = ("composite", "mask", "data")
"""What a loopback may send back: a composed video, the mask as a video, or masks on a data channel."""

ENCODER_THREADS = 4
"""Threads that encode for viewers. Sessions encode on their own; the event loop's default executor serves files and
names, which must not wait for videos."""


class Opening(TypedDict):
    """What a session is opened with besides its options."""

    model: str | None
    traceparent: str | None


Answered: TypeAlias = asyncio.Future[tuple[str, Connection, str]]
"""Set once to (resource path, connection, SDP answer)."""

Run: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Runs a connection from its offer to its end."""


class WebRTC:
    """The signalling routes and the connections they have opened. Opened by `serve_webrtc`."""

    def __init__(
        self,
        sessions: Sessions,
        backgrounds: Backgrounds,
        config: WebRTCConfig,
        security: Security,
        executor: ThreadPoolExecutor,
        broadcasts: Broadcasts,
        ports: OwnPorts | SharedPort,
    ) -> None:
        self._sessions, self._backgrounds, self._config = sessions, backgrounds, config
        self._security, self._executor, self._broadcasts = security, executor, broadcasts
        self._ports = ports
        self._rate = Rate()
        self._open = OpenConnections(config.ice, self._rate)
        self._encodings: dict[Broadcast, Encodings] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def routes(self) -> list[web.RouteDef]:
        """The routes of the HTTP server."""
        return [
            web.post("/webrtc", self._loop_back),
            web.post("/whip/{stream}", self._publish),
            web.post("/whep/{stream}", self._view),
            web.post("/whep/{stream}/{output}", self._view),
            *self._open.routes,
        ]

    @property
    def patches(self) -> dict[str, Any]:
        """Handlers of PATCH on a session, by content type, besides the one that changes the session itself."""
        return self._open.patches

    async def close(self) -> None:
        """Close every connection, and wait until all are closed."""
        for task in self._tasks:
            if task.get_name() == CONNECTION:
                task.cancel()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _loop_back(self, request: web.Request) -> web.Response:
        offer, answered = await read_offer(request, self._rate), self._future()
        if (result := request.query.get("result", "composite")) not in RESULTS:
            raise BadOption("result", f"got {result!r}, expected one of {', '.join(RESULTS)}")
        options = await self._options(request, "blur" if result == "composite" else "mask")
        run = partial(self._run_loopback, result, offer, options, _opening(request), answered)
        return await self._answer(request, run, answered)

    async def _publish(self, request: web.Request) -> web.Response:
        offer, options, answered = await read_offer(request, self._rate), await self._options(request), self._future()
        run = partial(self._run_publisher, request.match_info["stream"], offer, options, _opening(request), answered)
        return await self._answer(request, run, answered)

    async def _view(self, request: web.Request) -> web.Response:
        output = request.match_info.get("output", "composite")
        if output not in VIDEOS:
            raise web.HTTPNotFound(text=f"got {output!r}, expected one of {', '.join(VIDEOS)}")
        offer, answered = await read_offer(request, self._rate), self._future()
        run = partial(self._run_viewer, request.match_info["stream"], output, offer, answered)
        return await self._answer(request, run, answered)

    async def _options(self, request: web.Request, mode: str = "blur") -> Options:
        query, background = request.query, None
        if name := query.get("background"):
            background = await self._backgrounds.pick(name)
        return Options(mode, background=background).changed(query)

    async def _answer(self, request: web.Request, run: Run, answered: Answered) -> web.Response:
        """201 with the answer of a connection, which lives on in a task of its own."""
        task = self._start(self._hold(run, request.headers.get("Authorization")), CONNECTION)
        try:
            await asyncio.wait((task, answered), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not answered.done():
            await task  # it has ended without an answer: raises the reason
        location, connection, answer = answered.result()
        headers = {"Location": location, "ETag": connection.etag, "Accept-Patch": FRAGMENT}
        answer = advertise(answer, self._config.advertised)
        response = web.Response(status=201, text=answer, content_type=SDP, headers=headers)
        response.headers.extend([("Link", link) for link in self._config.ice.links()])
        return response

    async def _hold(self, run: Run, authorization: str | None) -> None:
        """Run a connection until it ends or its credentials expire."""
        task = asyncio.current_task()
        assert task is not None

        def end(error: Unauthenticated) -> None:
            log_event(logger, logging.INFO, "connection closed", reason=str(error))
            task.cancel()

        async with self._security.holding(authorization, end):
            await run()

    async def _run_loopback(
        self, result: str, offer: str, options: Options, opening: Opening, answered: Answered
    ) -> None:
        codec, make_uplink = _loopback(result, self._config.max_frame_pixels)
        with closing(codec):
            composed = result == "composite"
            async with self._sessions.open("webrtc", codec, options, may_be_finer=composed, **opening) as session:
                uplink = make_uplink(session, self._config.idle_seconds)
                async with self._connected(uplink.connection, session.id, uplink.close):
                    answer = await uplink.answer(offer)
                    answered.set_result((f"/v1/sessions/{session.id}", uplink.connection, answer))
                    await uplink.run()

    async def _run_publisher(
        self, name: str, offer: str, options: Options, opening: Opening, answered: Answered
    ) -> None:
        with (
            self._broadcasts.publish(name) as broadcast,
            closing(BroadcastCodec(self._config.max_frame_pixels, lambda: broadcast.wanted)) as codec,
        ):
            async with self._sessions.open("webrtc", codec, options, stream=name, **opening) as session:
                publisher = Publisher(session, broadcast, self._config.idle_seconds, self._sessions.feed)
                async with self._connected(publisher.connection, session.id, publisher.close):
                    answer = await publisher.answer(offer)
                    answered.set_result((f"/v1/sessions/{session.id}", publisher.connection, answer))
                    await publisher.run(publisher.show())

    @contextmanager
    def _encodings_of(self, broadcast: Broadcast) -> Iterator[Encodings]:
        """The encodings of a broadcast, which are kept while it has viewers here."""
        encodings = self._encodings.setdefault(broadcast, Encodings(broadcast, self._sessions, self._executor))
        encodings.viewers += 1
        try:
            yield encodings
        finally:
            encodings.viewers -= 1
            if not encodings.viewers:
                del self._encodings[broadcast]

    async def _run_viewer(self, name: str, output: str, offer: str, answered: Answered) -> None:
        await self._broadcasts.wake(name)
        with (
            self._broadcasts.view(name) as broadcast,
            self._encodings_of(broadcast) as encodings,
            self._sessions.admit_sharing_viewer(broadcast.pixels[output], encodes=not encodings.makes(output)) as load,
            broadcast.sound.listen() as listener,
        ):
            count_event = partial(self._sessions.metrics.event, "channel")
            viewer = Viewer(self._sessions.new_id(), broadcast, output, encodings, count_event)
            async with self._connected(viewer.connection, viewer.id, viewer.close):
                self._open.viewers[viewer.id] = viewer
                reason = "not answered, or cancelled"
                log_event(logger, logging.INFO, "viewer opened", viewer=viewer.id[:6], stream=name)
                try:
                    answer = await viewer.answer(offer, load, listener)
                    answered.set_result((f"/v1/viewers/{viewer.id}", viewer.connection, answer))
                    reason = await viewer.run()
                finally:
                    del self._open.viewers[viewer.id]
                    log_event(logger, logging.INFO, "viewer closed", viewer=viewer.id[:6], reason=reason)

    @asynccontextmanager
    async def _connected(
        self, connection: Connection, name: str, close: Callable[[], Coroutine[Any, Any, None]]
    ) -> AsyncIterator[None]:
        """Make the connection known by a name for the length of the block, and close it at the end."""
        self._open.connections[name] = connection
        try:
            yield
        finally:
            del self._open.connections[name]
            # In a task of its own: cancelled half-way, aiortc would leave its sockets open.
            await asyncio.shield(self._start(close(), "webrtc-close"))

    def _start(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start a task and hold it until it is done: the loop has only weak references."""
        context = copy_context()
        context.run(PORTS.set, self._ports)
        task = context.run(asyncio.create_task, coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _future(self) -> Answered:
        return asyncio.get_running_loop().create_future()


def _loopback(result: str, max_pixels: int) -> tuple[Any, Callable[[Session[Any, Any], float], Uplink[Any]]]:
    """What a session needs to send `result` back: its codec, and the connection that carries it."""
    if result == "data":
        return MaskMessageCodec(max_pixels), MaskSender
    encoder = PictureEncoder()
    make_codec = MaskCodec if result == "mask" else LoopbackCodec
    return make_codec(max_pixels, encoder), partial(Loopback, encoder=encoder)


def _opening(request: web.Request) -> Opening:
    return {"model": request.query.get("model"), "traceparent": request.headers.get("traceparent")}


def _ports(config: WebRTCConfig, metrics: Metrics) -> OwnPorts | SharedPort:
    if config.port is None:
        return OwnPorts(config.ports)
    return SharedPort(config.port, TcpPort(config.port, metrics.media_tcp_refused) if config.tcp else None)


@asynccontextmanager
async def serve_webrtc(
    sessions: Sessions,
    backgrounds: Backgrounds,
    config: WebRTCConfig,
    security: Security | None = None,
    broadcasts: Broadcasts | None = None,
) -> AsyncIterator[WebRTC]:
    """The transport for the length of the block. Without `security` connections need no credentials.

    `broadcasts` are the named streams, where other transports publish or watch them as well.

    Raises:
        OSError: the port for media is taken.
    """
    aiortc_patches.install()
    executor = ThreadPoolExecutor(ENCODER_THREADS, thread_name_prefix="viewer-encoder")
    named = broadcasts or Broadcasts(config.max_viewers, sessions.shared)
    ports = _ports(config, sessions.metrics)
    webrtc = WebRTC(sessions, backgrounds, config, security or Security.allow_all(), executor, named, ports)
    with media_ports(asyncio.get_running_loop(), ports):
        try:
            if isinstance(ports, SharedPort):
                ports.start()
            yield webrtc
        finally:
            await webrtc.close()
            executor.shutdown(wait=False)
