"""What a WHIP or WHEP client may do to its connection: trickle candidates, and end a viewer."""

from aiohttp import web

from portrait.errors import NoSuchSession
from portrait.transports.webrtc.connection import Connection
from portrait.transports.webrtc.offer_limits import SDP, Rate
from portrait.transports.webrtc.turn import IceServers
from portrait.transports.webrtc.whep import Viewer

FRAGMENT = "application/trickle-ice-sdpfrag"
POSTS = ("/webrtc", "/whip/{stream}", "/whep/{stream}", "/whep/{stream}/{output}")


class Resources:
    """The open connections by the id of their session or viewer."""

    def __init__(self, ice: IceServers, rate: Rate) -> None:
        self._ice, self._rate = ice, rate
        self.connections: dict[str, Connection] = {}
        self.viewers: dict[str, Viewer] = {}
        self.patches = {FRAGMENT: self.trickle}
        """Who takes a PATCH of a session, by its content type, besides those that change the session itself."""

    @property
    def routes(self) -> list[web.RouteDef]:
        """What the HTTP server shall serve besides the offers."""
        return [
            *(web.options(path, self._options) for path in POSTS),
            *(web.get(path, self._look) for path in POSTS),
            web.get("/v1/viewers/{id}", self._get),
            web.patch("/v1/viewers/{id}", self.trickle),
            web.delete("/v1/viewers/{id}", self._delete),
        ]

    async def trickle(self, request: web.Request) -> web.Response:
        """PATCH of RFC 9725 section 4.3: candidates in; ICE restarts are refused."""
        self._rate.take(request.remote)
        if request.content_type != FRAGMENT:
            raise web.HTTPUnsupportedMediaType(
                text=f"{request.content_type} came; expected {FRAGMENT}", headers={"Accept-Patch": FRAGMENT}
            )
        try:
            connection = self.connections[request.match_info["id"]]
        except KeyError:
            raise NoSuchSession("no connection of that id is open") from None
        match request.headers.get("If-Match"):
            case None:
                raise web.HTTPPreconditionRequired(text="no If-Match came; expected the ETag of the answer")
            case "*":
                raise web.HTTPUnprocessableEntity(text="ICE restarts are not supported; connect anew")
            case tag if tag != connection.etag:
                raise web.HTTPPreconditionFailed(text=f"If-Match {tag} came; the ETag is {connection.etag}")
        await connection.add_candidates(await request.text())
        return web.Response(status=204)

    async def _options(self, request: web.Request) -> web.Response:
        response = web.Response(headers={"Accept-Post": SDP, "Allow": "GET, HEAD, OPTIONS, POST"})
        # Not on preflights, which everybody may send.
        if "Access-Control-Request-Method" not in request.headers:
            response.headers.extend([("Link", link) for link in self._ice.links()])
        return response

    async def _look(self, request: web.Request) -> web.Response:
        """There is nothing to see here, and nothing wrong with looking."""
        return web.Response(content_type=SDP)

    async def _get(self, request: web.Request) -> web.Response:
        viewer = self._viewer(request)
        return web.json_response({"id": viewer.id, "stream": viewer.stream.name, "output": viewer.output})

    async def _delete(self, request: web.Request) -> web.Response:
        self._viewer(request).end("ended by DELETE")
        return web.Response(status=200)

    def _viewer(self, request: web.Request) -> Viewer:
        try:
            return self.viewers[request.match_info["id"]]
        except KeyError:
            raise NoSuchSession("no viewer of that id is connected") from None
