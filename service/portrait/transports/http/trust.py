"""How a device comes to trust the box: the site's authority to download, and a page that says what to do with it."""

from pathlib import Path

from aiohttp import web

from portrait.security import Certificates

PAGE = Path(__file__).parent.parent / "web" / "trust.html"


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
