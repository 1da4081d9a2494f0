"""How a device comes to trust the box: the site's authority to download, and a page that says what to do with it."""

from pathlib import Path
from typing import Any

from aiohttp import web

from portrait import __version__
from portrait.image.backgrounds import MAX_PIXELS
from portrait.security import Certificates, Security


class About:
    """The route. `grpc_port` is None until the gRPC server listens."""

    def __init__(self, security: Security, max_body_bytes: int) -> None:
        self._security, self._max_body_bytes = security, max_body_bytes
        self.grpc_port: int | None = None

    @property
    def routes(self) -> list[web.RouteDef]:
        """What the HTTP server shall serve."""
        return [web.get("/v1/about", self._about)]

    async def _about(self, request: web.Request) -> web.Response:
        certificates = self._security.certificates
        about: dict[str, Any] = {
            "version": __version__,
            "grpc_port": self.grpc_port,
            "tls": certificates is not None,
            "authority": certificates is not None and certificates.authority is not None,
            "token": self._security.wants_token,
            "max_body_bytes": self._max_body_bytes,
            "max_background_pixels": MAX_PIXELS,
        }
        return web.json_response(about)


PAGE = Path(__file__).parents[2] / "web" / "trust.html"


class Trust:
    """The routes; both are open to everybody, since what they give is public."""

    def __init__(self, certificates: Certificates | None) -> None:
        self._authority = certificates.authority if certificates else None

    @property
    def routes(self) -> list[web.RouteDef]:
        """What the HTTP server shall serve."""
        return [web.get("/ca.crt", self._certificate), web.get("/trust", self._page)]

    async def _certificate(self, request: web.Request) -> web.FileResponse:
        if self._authority is None:
            raise web.HTTPNotFound(text="this box has no authority of its own; it has one with PORTRAIT_TLS=auto")
        # The type makes iOS and Android offer to install it.
        headers = {
            "Content-Type": "application/x-x509-ca-cert",
            "Content-Disposition": 'attachment; filename="portrait-ca.crt"',
        }
        return web.FileResponse(self._authority.authority, headers=headers)

    async def _page(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(PAGE)
