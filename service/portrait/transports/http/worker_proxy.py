"""WorkerProxy: several workers behind one port, each of which answers for the whole box.

Each worker also listens on a Unix socket in the box's shared folder, which only the other workers can open. A request
about a session is forwarded to the worker that has the session, one that opens a session to the worker with the most
capacity left, and requests about the whole box are answered from what all workers say.
"""

import asyncio
import json
from asyncio import timeout
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from portrait.errors import NoSuchSession, WorkerLost
from portrait.transports.http.events import RELAYS, Relay
from portrait.transports.http.forwarding import forwarded, pass_on, relay_events, target_of, use_forwarded_address
from portrait.workers.ids import owner_of_id
from portrait.workers.shared_state import SharedState

END = "# EOF"
"""The last line of OpenMetrics."""


def merge(scrapes: Iterable[bytes]) -> bytes:
    """Merge scrapes of one format into one: each family once, with the samples of all, which a label distinguishes.

    Lines are moved without being parsed: a family is what stands between two lines `# HELP`.
    """
    families: dict[str, tuple[list[str], list[str]]] = {}
    ended = False
    for scrape in scrapes:
        head: list[str] = []
        samples: list[str] = []
        fresh = False
        for line in scrape.decode().splitlines():
            if line.startswith("# HELP "):
                name = line.split(" ", 3)[2]
                fresh = name not in families
                head, samples = families.setdefault(name, ([], []))
            if line == END:
                ended = True
            elif not line.startswith("#"):
                samples.append(line)
            elif fresh:
                head.append(line)
    lines = [line for head, samples in families.values() for line in (*head, *samples)]
    return "\n".join([*lines, *([END] if ended else []), ""]).encode()


ANSWER_SECONDS = 2.0
"""How long a request about the whole box waits for one worker; a worker that hangs is left out."""

OPENING = ("/webrtc", "/v1/segment", "/whip/{stream}")
"""Paths where POST opens a session."""

EVENTS = "http://worker/v1/events"

RETRY_AFTER = 1.0


class WorkerProxy:
    """Forwards requests to the other workers. Opened by `open_worker_proxy`."""

    def __init__(self, shared: SharedState, clients: dict[int, aiohttp.ClientSession]) -> None:
        self._shared, self._clients = shared, clients

    @property
    def middleware(self) -> Middleware:
        """A middleware that answers for the box; requests for this worker go on to their handlers."""

        @web.middleware
        async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
            match request.method, request.path:
                case "GET", "/metrics":
                    return await self._metrics(request, handler)
                case "GET", "/v1/sessions":
                    return await self._sessions(request, handler)
                case "GET", "/v1/cameras":
                    return await self._cameras(request, handler)
                case "GET", "/readyz":
                    return self._ready()
                case "GET", "/v1/events":
                    stream = request.query.get("stream")
                    relays: list[Relay] = [partial(relay_events, one, EVENTS, stream) for one in self._clients.values()]
                    request[RELAYS] = relays
                    return await handler(request)
            index = self._worker_for(request)
            if index == self._shared.index or index not in self._clients:
                return await handler(request)
            return await self._forward(request, index)

        return answer

    def _worker_for(self, request: web.Request) -> int:
        """The index of the worker that has to answer."""
        known = request.match_info
        if "id" in known:
            owner = owner_of_id(known["id"], self._shared.places)
            return self._shared.index if owner is None else owner
        if "stream" in known and (owner := self._shared.stream_names.owner(known["stream"])) is not None:
            return owner
        resource = known.route.resource
        if request.method == "POST" and resource is not None and resource.canonical in OPENING:
            return self._least_loaded()
        return self._shared.index

    def _least_loaded(self) -> int:
        """The worker with the least to do; this one among equals, which saves forwarding."""
        rows = self._shared.rows
        ready = [i for i, row in enumerate(rows) if row.ready and not row.draining]
        return min(
            ready or [self._shared.index],
            key=lambda i: (rows[i].committed, rows[i].sessions, i != self._shared.index),
        )

    def _ready(self) -> web.Response:
        """Ready once every worker has come up, and from then on while one of them accepts work."""
        ready = [row.ready and not row.draining for row in self._shared.rows if row.alive_at]
        ready += [False] * (self._shared.count - len(ready))
        serving = self._shared.started and any(ready)
        document = {"status": "ready" if serving else "not ready", "workers": ready}
        return web.json_response(document, status=200 if serving else 503)

    async def _forward(self, request: web.Request, index: int) -> web.StreamResponse:
        """Have another worker answer.

        Raises:
            NoSuchSession, WorkerLost: the worker is gone.
        """
        try:
            return await pass_on(request, self._clients[index], f"http://worker{target_of(request)}")
        except aiohttp.ClientError as error:
            if "id" in request.match_info:
                raise NoSuchSession("no session has this id, or it has ended") from error
            raise WorkerLost("the worker that had to answer has ended; try again", RETRY_AFTER) from error

    async def _metrics(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        own = await handler(request)
        assert isinstance(own, web.Response)
        assert isinstance(own.body, bytes)
        others = await self._ask_all("/metrics", forwarded(request.headers).get("Accept", ""))
        return web.Response(body=merge([own.body, *others]), headers={"Content-Type": own.headers["Content-Type"]})

    async def _sessions(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        own = await handler(request)
        assert isinstance(own, web.Response)
        assert isinstance(own.body, bytes)
        bodies = [own.body, *await self._ask_all("/v1/sessions", "application/json")]
        listed: list[Any] = [row for body in bodies for row in json.loads(body)]
        return web.json_response(listed)

    async def _cameras(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Each camera as the worker that has it says; all others say that it is idle."""
        own = await handler(request)
        assert isinstance(own, web.Response)
        assert isinstance(own.body, bytes)
        cameras: dict[str, Any] = {}
        for body in [own.body, *await self._ask_all("/v1/cameras", "application/json")]:
            for camera in json.loads(body):
                known = cameras.setdefault(camera["name"], camera)
                if known["state"] == "idle" or (known["state"] == "failed" and camera["since"] > known["since"]):
                    cameras[camera["name"]] = camera if camera["state"] != "idle" else known
        return web.json_response(list(cameras.values()))

    async def _ask_all(self, path: str, accept: str) -> list[bytes]:
        """What the other workers answer, without those that have ended or hang."""

        async def ask(client: aiohttp.ClientSession) -> bytes | None:
            try:
                async with (
                    timeout(ANSWER_SECONDS),
                    client.get(f"http://worker{path}", headers={"Accept": accept}) as answer,
                ):
                    return await answer.read() if answer.status == 200 else None
            except (aiohttp.ClientError, TimeoutError):
                return None

        answers = await asyncio.gather(*(ask(client) for client in self._clients.values()))
        return [answer for answer in answers if answer is not None]


@asynccontextmanager
async def open_worker_proxy(shared: SharedState) -> AsyncIterator[WorkerProxy]:
    """A proxy to the other workers, for the length of the block."""
    # A still may take long, and large answers are sent as they are read: only connecting is timed.
    waits = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_SECONDS)
    clients = {
        index: aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(shared.socket(index)), limit=0),
            timeout=waits,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        for index in range(shared.places)
        if index != shared.index
    }
    try:
        yield WorkerProxy(shared, clients)
    finally:
        await asyncio.gather(*(client.close() for client in clients.values()))


@asynccontextmanager
async def serve_other_workers(
    path: Path, routes: Iterable[web.RouteDef], middlewares: Iterable[Middleware], max_body_bytes: int
) -> AsyncIterator[None]:
    """Serve the routes on a Unix socket for the length of the block. The forwarding worker has checked credentials."""
    application = web.Application(middlewares=[*middlewares, use_forwarded_address], client_max_size=max_body_bytes)
    application.add_routes(routes)
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(path)).start()
        yield
    finally:
        await runner.cleanup()
