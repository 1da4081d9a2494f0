"""What WHIP and WHEP clients may do to an open connection: trickle candidates, and end a viewer."""

from aiohttp import web

from portrait.errors import NoSuchSession
from portrait.transports.webrtc.connection import Connection
from portrait.transports.webrtc.offer_limits import SDP, Rate
from portrait.transports.webrtc.turn import IceServers
from portrait.transports.webrtc.whep import Viewer

FRAGMENT = "application/trickle-ice-sdpfrag"
POSTS = ("/webrtc", "/whip/{stream}", "/whep/{stream}", "/whep/{stream}/{output}")


class OpenConnections:
    """The open connections by the id of their session or viewer, and the routes to them."""

    def __init__(self, ice: IceServers, rate: Rate) -> None:
        self._ice, self._rate = ice, rate
        self.connections: dict[str, Connection] = {}
        self.viewers: dict[str, Viewer] = {}
        self.patches = {FRAGMENT: self.trickle}
        """Handlers of PATCH on a session, by content type, besides the one that changes the session itself."""

    @property
    def routes(self) -> list[web.RouteDef]:
        """The routes of the HTTP server, except those that take offers."""
        return [
            *(web.options(path, self._options) for path in POSTS),
            *(web.get(path, self._empty) for path in POSTS),
            web.get("/v1/viewers/{id}", self._get),
            web.patch("/v1/viewers/{id}", self.trickle),
            web.delete("/v1/viewers/{id}", self._delete),
        ]

    async def trickle(self, request: web.Request) -> web.Response:
        """PATCH of RFC 9725 section 4.3: takes candidates, and refuses ICE restarts."""
        self._rate.take(request.remote)
        if request.content_type != FRAGMENT:
            raise web.HTTPUnsupportedMediaType(
                text=f"got {request.content_type}, expected {FRAGMENT}", headers={"Accept-Patch": FRAGMENT}
            )
        try:
            connection = self.connections[request.match_info["id"]]
        except KeyError:
            raise NoSuchSession("no connection of that id is open") from None
        match request.headers.get("If-Match"):
            case None:
                raise web.HTTPPreconditionRequired(text="got no If-Match, expected the ETag of the answer")
            case "*":
                raise web.HTTPUnprocessableEntity(text="ICE restarts are not supported: connect anew")
            case tag if tag != connection.etag:
                raise web.HTTPPreconditionFailed(text=f"got If-Match {tag!r}, expected the ETag {connection.etag}")
        await connection.add_candidates(await request.text())
        return web.Response(status=204)

    async def _options(self, request: web.Request) -> web.Response:
        response = web.Response(headers={"Accept-Post": SDP, "Allow": "GET, HEAD, OPTIONS, POST"})
        # Not on preflight requests, which need no credentials.
        if "Access-Control-Request-Method" not in request.headers:
            response.headers.extend([("Link", link) for link in self._ice.links()])
        return response

    async def _empty(self, request: web.Request) -> web.Response:
        """GET on a path that takes offers succeeds and returns nothing."""
        return web.Response(content_type=SDP)

    async def _get(self, request: web.Request) -> web.Response:
        viewer = self._viewer(request)
        return web.json_response({"id": viewer.id, "stream": viewer.broadcast.name, "output": viewer.output})

    async def _delete(self, request: web.Request) -> web.Response:
        self._viewer(request).end("ended by DELETE")
        return web.Response(status=200)

    def _viewer(self, request: web.Request) -> Viewer:
        try:
            return self.viewers[request.match_info["id"]]
        except KeyError:
            raise NoSuchSession("no viewer of that id is connected") from None
