"""What a page must know of the box to write down how to use it elsewhere: ports, credentials, limits."""

from typing import Any

from aiohttp import web

from portrait import __version__
from portrait.image.backgrounds import MAX_PIXELS
from portrait.security import Security


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
