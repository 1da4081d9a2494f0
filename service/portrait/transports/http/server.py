"""The HTTP transport: page, session resources, stills, metrics, health; it hosts the routes of others."""

import asyncio
import base64
import binascii
import dataclasses
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from socket import socket
from typing import Any

from aiohttp import web

from portrait.core.compositors import MODES
from portrait.errors import BadOption
from portrait.image.backgrounds import Backgrounds
from portrait.image.clip import Clip
from portrait.image.frame import Frame
from portrait.security import Security
from portrait.sessions.registry import Sessions
from portrait.transports.http.auth import guard
from portrait.transports.http.box_info import About, Trust
from portrait.transports.http.connection_limits import Door, is_not_the_clients_doing, listen, opened
from portrait.transports.http.cors import allow, answer_preflights
from portrait.transports.http.errors import problems
from portrait.transports.http.stills import Stills
from portrait.transports.http.worker_proxy import open_neighbours, serve_neighbours
from portrait.workers.shared_state import SharedState

protocol_logger = logging.getLogger(f"{__name__}.protocol")

WEB = Path(__file__).parents[2] / "web"

TEXTS, NUMBERS = ("mode", "color", "background"), ("threshold", "feather")
FLAGS = ("framing", "decontaminate", "reset")
CHANGES = (*TEXTS, *NUMBERS, *FLAGS)

MOST_MEMBERS = 100
"""Of a change, by its commas. A body has room for millions, whose parsing takes seconds that nothing interrupts."""

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

CACHING = "no-cache"
"""A page and its modules belong to one version: browsers ask each time whether what they have is still it (ETag)."""


class HttpRoutes:
    """The routes that belong to no other transport."""

    def __init__(
        self,
        sessions: Sessions,
        backgrounds: Backgrounds,
        expose: Callable[[str], tuple[bytes, str]],
        is_ready: Callable[[], bool],
        patches: Mapping[str, Callable[[web.Request], Awaitable[web.Response]]],
    ) -> None:
        self._sessions, self._backgrounds, self._patches = sessions, backgrounds, patches
        self._expose, self._is_ready = expose, is_ready

    @property
    def routes(self) -> list[web.RouteDef]:
        """What the HTTP server shall serve."""
        return [
            web.get("/", self._page),
            web.get("/portrait.js", self._module),
            web.get(r"/litert/{file:[\w.-]+}", self._litert),
            web.get("/models/{name}.tflite", self._model),
            web.get("/metrics", self._metrics),
            web.get("/healthz", self._health),
            web.get("/readyz", self._ready),
            web.get("/v1/models", self._models),
            web.get("/v1/modes", self._modes),
            web.get("/v1/backgrounds", self._list_backgrounds),
            web.get("/v1/backgrounds/{name}", self._background),
            web.get("/v1/backgrounds/{name}/still", self._still),
            web.get("/v1/sessions", self._list_sessions),
            web.get("/v1/sessions/{id}", self._get_session),
            web.patch("/v1/sessions/{id}", self._change_session),
            web.delete("/v1/sessions/{id}", self._end_session),
        ]

    async def _page(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(WEB / "index.html")

    async def _module(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(WEB / "portrait.js")

    async def _litert(self, request: web.Request) -> web.FileResponse:
        # Most of it is there as FILE.gz only, which is sent to whoever accepts it: every browser.
        return web.FileResponse(WEB / "litert" / request.match_info["file"])

    async def _model(self, request: web.Request) -> web.FileResponse:
        name = request.match_info["name"]
        if name not in self._sessions.models.by_name:
            raise web.HTTPNotFound(text=f"unknown model {name!r}; expected one of {[*self._sessions.models.by_name]}")
        return web.FileResponse(self._sessions.models.by_name[name].path)

    async def _metrics(self, request: web.Request) -> web.Response:
        body, content_type = self._expose(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _ready(self, request: web.Request) -> web.Response:
        ready = self._is_ready()
        return web.json_response({"status": "ready" if ready else "not ready"}, status=200 if ready else 503)

    async def _models(self, request: web.Request) -> web.Response:
        models = self._sessions.models
        fields = ("name", "width", "height", "stateful")
        return web.json_response(
            [
                {field: getattr(model, field) for field in fields} | {"default": model.name == models.default}
                for model in models.by_name.values()
            ]
        )

    async def _modes(self, request: web.Request) -> web.Response:
        return web.json_response(list(MODES))

    async def _list_backgrounds(self, request: web.Request) -> web.Response:
        return web.json_response(self._backgrounds.names)

    async def _background(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(self._backgrounds.path(request.match_info["name"]))

    async def _still(self, request: web.Request) -> web.Response:
        still = await self._backgrounds.still(request.match_info["name"])
        return web.Response(body=still, content_type="image/jpeg")

    async def _list_sessions(self, request: web.Request) -> web.Response:
        # Whoever knows an id can end or change the session: the list shows only who may be told apart.
        listed = [{**numbers, "id": f"{numbers['id'][:6]}…"} for numbers in self._sessions.describe()]
        return web.json_response(listed)

    async def _get_session(self, request: web.Request) -> web.Response:
        return web.json_response(self._sessions[request.match_info["id"]].describe())

    async def _end_session(self, request: web.Request) -> web.Response:
        self._sessions[request.match_info["id"]].end("ended by DELETE")
        return web.Response(status=200)

    async def _change_session(self, request: web.Request) -> web.Response:
        """JSON changes the session; other content types are for whoever takes them."""
        session = self._sessions[request.match_info["id"]]
        if (other := self._patches.get(request.content_type)) is not None:
            return await other(request)
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(
                text=f"{request.content_type} came; expected application/json",
                headers={"Accept-Patch": ", ".join(("application/json", *self._patches))},
            )
        changes = _read_changes(await request.text())
        values = await self._values(changes)
        # Of the options as they are now: another change may have come while a background was decoded.
        session.change(dataclasses.replace(session.options, **values))
        if changes.get("reset"):
            session.reset()
        return web.json_response(session.describe())

    async def _values(self, changes: dict[str, Any]) -> dict[str, Any]:
        """What the changes make of a session's options."""
        named = ("mode", "color", *NUMBERS, "framing", "decontaminate")
        values: dict[str, Any] = {name: changes[name] for name in named if name in changes}
        if isinstance(background := changes.get("background"), str):
            values["background"] = await self._read_background(background)
        return values

    async def _read_background(self, background: str) -> Frame | Clip:
        """A background by name or as a data URL; no other URL is ever fetched."""
        if not background.startswith("data:"):
            return await self._backgrounds.pick(background)
        return await self._backgrounds.decode(await asyncio.to_thread(_read_data_url, background))


def _read_data_url(url: str) -> bytes:
    try:
        return base64.b64decode(url.partition(",")[2], validate=True)
    except binascii.Error as error:
        raise BadOption("background", f"a data URL that is not base64: {error}") from error


def _read_changes(text: str) -> dict[str, Any]:
    if (members := text.count(",") + 1) > MOST_MEMBERS:
        raise BadOption("body", f"{members} members came; expected a JSON object with any of {', '.join(CHANGES)}")
    try:
        changes = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadOption("body", f"not JSON: {error}") from error
    if not isinstance(changes, dict) or (changes.keys() - set(CHANGES)):
        raise BadOption("body", f"{text[:80]!r} came; expected a JSON object with any of {', '.join(CHANGES)}")
    for name in TEXTS:
        if name in changes and not isinstance(changes[name], str):
            raise BadOption(name, f"{changes[name]!r} is no text")
    for name in NUMBERS:
        value = changes.get(name, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1:
            raise BadOption(name, f"{str(value)[:80]} is no number from 0 to 1")
    for name in FLAGS:
        if not isinstance(changes.get(name, False), bool):
            raise BadOption(name, f"{changes[name]!r} is neither true nor false")
    return changes


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(SECURITY_HEADERS)
    response.headers.setdefault("Cache-Control", CACHING)


@asynccontextmanager
async def serve_http(
    routes: Iterable[web.RouteDef],
    *,
    host: str,
    port: int,
    max_body_bytes: int,
    security: Security | None = None,
    origins: Sequence[str] = (),
    board: SharedState | None = None,
    listening: socket | None = None,
) -> AsyncIterator[int]:
    """A server for the length of the block; gives the TCP port in use. Without `security` everybody may call.

    Pages of `origins`, `*` for all, may use it besides its own. One worker of several answers for all that are at the
    `board`, and takes connections from the socket they share.

    Raises:
        OSError: the address cannot be bound.
    """
    routes = list(routes)
    certificates = security.certificates if security else None
    door = Door(certificates.context() if certificates else None)
    middlewares = [door.keeper(), problems, answer_preflights, *([guard(security)] if security else []), door.porter()]
    async with AsyncExitStack() as stack:
        if board is not None and board.count > 1:
            own = board.socket(board.index)
            await stack.enter_async_context(serve_neighbours(own, routes, [problems], max_body_bytes))
            middlewares.append((await stack.enter_async_context(open_neighbours(board))).middleware)
        application = web.Application(middlewares=middlewares, client_max_size=max_body_bytes)
        application.on_response_prepare.append(_add_headers)
        application.on_response_prepare.append(allow(origins))
        application.add_routes(routes)
        application.router.add_static("/web", WEB)
        protocol_logger.addFilter(is_not_the_clients_doing)
        runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=1.0, logger=protocol_logger
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        assert runner.server is not None
        sockets = [listening] if listening is not None else listen(host, port)
        await stack.enter_async_context(opened(door, runner.server, sockets))
        yield sockets[0].getsockname()[1]


__all__ = ["About", "HttpRoutes", "Stills", "Trust", "serve_http"]
