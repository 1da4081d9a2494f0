"""Several workers behind one port: whoever takes a connection answers for the box.

Each worker also listens on a Unix socket in the box's shared folder, which only the others can enter. A request about a
session goes to the worker that holds it, a new session to the one with the most room, and what concerns the whole box
is asked of everybody.
"""

import asyncio
import json
import logging
from asyncio import timeout
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from multidict import CIMultiDict

from portrait.errors import NoSuchSession, WorkerLost
from portrait.workers.ids import owner_of_id
from portrait.workers.shared_state import SharedState

END = "# EOF"
"""The last line of OpenMetrics."""


def merge(scrapes: Iterable[bytes]) -> bytes:
    """One scrape of several in the same format, whose samples a label tells apart: each family once, with all samples.

    Lines are moved, not read: a family is what stands between two lines `# HELP`.
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


logger = logging.getLogger(__name__)

OF_ONE_CONNECTION = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
    "upgrade",
}  # fmt: skip
"""Headers that are not passed on (RFC 9110 section 7.6.1)."""

REMOTE = "X-Portrait-Remote"
"""How the caller's address travels to the worker that answers. Only the Unix socket believes it."""

ANSWER_SECONDS = 2.0
"""How long the box's scrape waits for one worker; a worker that hangs is left out of it."""

PLACED = ("/webrtc", "/v1/segment", "/whip/{stream}")
"""What opens a session: POST there goes to the worker with the most room."""

RETRY_AFTER = 1.0


class WorkerProxy:
    """The other workers as this one sees them. Opened by `open_worker_proxy`."""

    def __init__(self, shared: SharedState, clients: dict[int, aiohttp.ClientSession]) -> None:
        self._shared, self._clients = shared, clients

    @property
    def middleware(self) -> Middleware:
        """Answers for the box; what is this worker's own goes on to its handler."""

        @web.middleware
        async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
            match request.method, request.path:
                case "GET", "/metrics":
                    return await self._metrics(request, handler)
                case "GET", "/v1/sessions":
                    return await self._sessions(request, handler)
                case "GET", "/readyz":
                    return self._ready()
            index = self._place(request)
            if index == self._shared.index or index not in self._clients:
                return await handler(request)
            return await self._forward(request, index)

        return answer

    def _place(self, request: web.Request) -> int:
        """The worker that shall answer."""
        known = request.match_info
        if "id" in known:
            owner = owner_of_id(known["id"], self._shared.places)
            return self._shared.index if owner is None else owner
        if "stream" in known and (owner := self._shared.stream_names.owner(known["stream"])) is not None:
            return owner
        resource = known.route.resource
        if request.method == "POST" and resource is not None and resource.canonical in PLACED:
            return self._roomiest()
        return self._shared.index

    def _roomiest(self) -> int:
        """The worker with the least to do; this one among equals, which saves the way."""
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
        """Pass a request on and its answer back, both as they come: neither is held in memory.

        Raises:
            NoSuchSession, WorkerLost: the worker is gone.
        """
        headers = _passed_on(request.headers)
        headers[REMOTE] = request.remote or ""
        answer: web.StreamResponse | None = None
        try:
            async with self._clients[index].request(
                request.method,
                f"http://worker{request.raw_path}",
                headers=headers,
                data=request.content if request.body_exists else None,
                allow_redirects=False,
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            ) as came:
                answer = web.StreamResponse(status=came.status, reason=came.reason, headers=_passed_on(came.headers))
                await answer.prepare(request)
                async for chunk in came.content.iter_any():
                    await answer.write(chunk)
                await answer.write_eof()
                return answer
        except aiohttp.ClientError as error:
            if answer is not None and answer.prepared:
                if request.transport is not None:
                    request.transport.abort()  # half an answer has gone out: a problem would look like the rest of it
                return answer
            if "id" in request.match_info:
                raise NoSuchSession("no session of that id; it has ended or never was") from error
            raise WorkerLost("the worker that was asked has ended; try again", RETRY_AFTER) from error

    async def _metrics(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        own = await handler(request)
        assert isinstance(own, web.Response)
        assert isinstance(own.body, bytes)
        others = await self._ask_all("/metrics", request.headers.get("Accept", ""))
        return web.Response(body=merge([own.body, *others]), headers={"Content-Type": own.headers["Content-Type"]})

    async def _sessions(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        own = await handler(request)
        assert isinstance(own, web.Response)
        assert isinstance(own.body, bytes)
        bodies = [own.body, *await self._ask_all("/v1/sessions", "application/json")]
        listed: list[Any] = [row for body in bodies for row in json.loads(body)]
        return web.json_response(listed)

    async def _ask_all(self, path: str, accept: str) -> list[bytes]:
        """What every other worker answers; nothing of one that is gone or hangs."""

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


def _passed_on(headers: Any) -> CIMultiDict[str]:
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    left_out = OF_ONE_CONNECTION | named | {REMOTE.lower()}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in left_out)


@web.middleware
async def use_forwarded_address(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The caller's address as the worker before has seen it."""
    return await handler(request.clone(remote=request.headers.get(REMOTE, "")))


@asynccontextmanager
async def open_worker_proxy(shared: SharedState) -> AsyncIterator[WorkerProxy]:
    """The other workers, for the length of the block."""
    # An event stream has no end, and a still may take long: only connecting is timed.
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
    """The routes on a Unix socket, for the length of the block. Who may call has been asked at the box's door."""
    application = web.Application(middlewares=[*middlewares, use_forwarded_address], client_max_size=max_body_bytes)
    application.add_routes(routes)
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(path)).start()
        yield
    finally:
        await runner.cleanup()
