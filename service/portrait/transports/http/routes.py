"""The routes that belong to no other transport: page, sessions, backgrounds, models, metrics, health."""

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from aiohttp import web

from portrait import __version__
from portrait.admission.pixel_budget import PixelBudget
from portrait.core.compositors import MODES
from portrait.image.backgrounds import Backgrounds
from portrait.sessions.registry import Sessions
from portrait.transports.http.changes import read_change

WEB = Path(__file__).parents[2] / "web"
OPENAPI = Path(__file__).with_name("openapi.json")
"""The description of everything that HTTP carries (OpenAPI 3.1), but for the version."""

FILES = {
    path.relative_to(WEB).as_posix().removesuffix(".gz"): path.with_name(path.name.removesuffix(".gz"))
    for path in WEB.rglob("*")
    if path.is_file()
}
"""The page's files by their names below WEB. Some are there as NAME.gz only, which is sent to clients that accept it:
every browser does."""


class HttpRoutes:
    """The handlers of these routes.

    `patches` are handlers of PATCH on a session by content type, besides JSON's; `expose` gives the metrics for an
    Accept header, with their content type; `is_ready` says whether every transport accepts work.
    """

    def __init__(
        self,
        sessions: Sessions,
        backgrounds: Backgrounds,
        budget: PixelBudget,
        expose: Callable[[str], tuple[bytes, str]],
        is_ready: Callable[[], bool],
        patches: Mapping[str, Callable[[web.Request], Awaitable[web.Response]]],
    ) -> None:
        self._sessions, self._backgrounds, self._budget = sessions, backgrounds, budget
        self._expose, self._is_ready, self._patches = expose, is_ready, patches

    @property
    def routes(self) -> list[web.RouteDef]:
        """The routes to add to the HTTP server."""
        return [
            web.get("/", self._page),
            web.get("/portrait.js", self._module),
            web.get("/litert/{file}", self._litert),
            web.get("/web/{file:.+}", self._file),
            web.get("/models/{name}.tflite", self._model),
            web.get("/openapi.json", self._openapi),
            web.get("/metrics", self._metrics),
            web.get("/healthz", self._health),
            web.get("/readyz", self._ready),
            web.get("/v1/models", self._models),
            web.get("/v1/modes", self._modes),
            web.get("/v1/backgrounds", self._list_backgrounds),
            web.get("/v1/backgrounds/{name}", self._background),
            web.get("/v1/backgrounds/{name}/still", self._background_still),
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
        return _page_file(f"litert/{request.match_info['file']}")

    async def _file(self, request: web.Request) -> web.FileResponse:
        return _page_file(request.match_info["file"])

    async def _model(self, request: web.Request) -> web.FileResponse:
        name = request.match_info["name"]
        if name not in self._sessions.models.by_name:
            raise web.HTTPNotFound(text=f"got model {name!r}, expected one of {[*self._sessions.models.by_name]}")
        return web.FileResponse(self._sessions.models.by_name[name].path)

    async def _openapi(self, request: web.Request) -> web.Response:
        description = json.loads(OPENAPI.read_bytes())
        description["info"]["version"] = __version__
        return web.json_response(description)

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
        still = models.pick_still(None).name
        return web.json_response(
            [
                {"name": model.name, "width": model.width, "height": model.height, "stateful": model.stateful,
                 "default": model.name == models.default, "still_default": model.name == still,
                 "milliseconds": _rounded(self._sessions.milliseconds(model.name))}
                for model in models.by_name.values()
            ]
        )  # fmt: skip

    async def _modes(self, request: web.Request) -> web.Response:
        return web.json_response(list(MODES))

    async def _list_backgrounds(self, request: web.Request) -> web.Response:
        return web.json_response(self._backgrounds.names)

    async def _background(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(self._backgrounds.path(request.match_info["name"]))

    async def _background_still(self, request: web.Request) -> web.Response:
        still = await self._backgrounds.still(request.match_info["name"])
        return web.Response(body=still, content_type="image/jpeg")

    async def _list_sessions(self, request: web.Request) -> web.Response:
        # An id allows its session to be ended and changed: the list shows only as much as tells sessions apart.
        listed = [{**numbers, "id": f"{numbers['id'][:6]}…"} for numbers in self._sessions.describe()]
        return web.json_response(listed)

    async def _get_session(self, request: web.Request) -> web.Response:
        return web.json_response(self._sessions[request.match_info["id"]].describe())

    async def _end_session(self, request: web.Request) -> web.Response:
        self._sessions[request.match_info["id"]].end("ended by DELETE")
        return web.Response(status=200)

    async def _change_session(self, request: web.Request) -> web.Response:
        """JSON changes the options; other content types have handlers of other transports."""
        session = self._sessions[request.match_info["id"]]
        if (other := self._patches.get(request.content_type)) is not None:
            return await other(request)
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(
                text=f"got {request.content_type}, expected application/json",
                headers={"Accept-Patch": ", ".join(("application/json", *self._patches))},
            )
        change = read_change(await request.read())
        background = await change.background(self._backgrounds, self._budget)
        # Applied to the current options: another change may have come while the background was decoded.
        session.change(change.apply(session.options, background))
        if change.resets:
            session.reset()
        return web.json_response(session.describe())


def _page_file(name: str) -> web.FileResponse:
    """A file of the page. The name, which may hold anything, is looked up and never used as a path."""
    if name not in FILES:
        raise web.HTTPNotFound
    return web.FileResponse(FILES[name])


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 2)
