"""What the box tells of itself: its versions and limits for clients, and its certificate authority for devices."""

from pathlib import Path
from typing import Any

from aiohttp import web

from portrait import __version__
from portrait.image.backgrounds import MAX_PIXELS
from portrait.security import Certificates, Security

TRUST_PAGE = Path(__file__).parents[2] / "web" / "trust.html"


class BoxInfo:
    """The route /v1/about."""

    def __init__(self, security: Security, max_body_bytes: int, grpc_port: int) -> None:
        self._security, self._max_body_bytes, self._grpc_port = security, max_body_bytes, grpc_port

    @property
    def routes(self) -> list[web.RouteDef]:
        """The routes to add to the HTTP server."""
        return [web.get("/v1/about", self._about)]

    async def _about(self, request: web.Request) -> web.Response:
        certificates = self._security.certificates
        about: dict[str, Any] = {
            "version": __version__,
            "grpc_port": self._grpc_port,
            "tls": certificates is not None,
            "authority": certificates is not None and certificates.authority is not None,
            "token": self._security.wants_token,
            "max_body_bytes": self._max_body_bytes,
            "max_background_pixels": MAX_PIXELS,
        }
        return web.json_response(about)


class TrustRoutes:
    """The box's certificate authority, and a page that says how to install it. Both are public."""

    def __init__(self, certificates: Certificates | None) -> None:
        self._authority = certificates.authority if certificates else None

    @property
    def routes(self) -> list[web.RouteDef]:
        """The routes to add to the HTTP server."""
        return [web.get("/ca.crt", self._certificate), web.get("/trust", self._page)]

    async def _certificate(self, request: web.Request) -> web.FileResponse:
        if self._authority is None:
            raise web.HTTPNotFound(text="this box has no authority of its own; PORTRAIT_TLS=auto makes one")
        # The type makes iOS and Android offer to install it.
        headers = {
            "Content-Type": "application/x-x509-ca-cert",
            "Content-Disposition": 'attachment; filename="portrait-ca.crt"',
        }
        return web.FileResponse(self._authority.authority, headers=headers)

    async def _page(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(TRUST_PAGE)
