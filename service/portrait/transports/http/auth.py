"""The policy of security.py at the HTTP server's door."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import web
from aiohttp.typedefs import Middleware

from portrait.security import Security

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

OPEN = ("/healthz", "/readyz", "/metrics", "/ca.crt", "/trust", "/web/page.css", "/web/page/theme.js", "/web/icon.svg")
"""What a machine asks that has no credentials: they tell numbers, and nothing of any stream. And what somebody needs
who does not trust the box yet."""


def guard(security: Security) -> Middleware:
    """A middleware that lets nobody else pass, to no path but the open ones."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OPEN:
            has_certificate = bool(request.get_extra_info("peercert"))
            security.check(request.headers.get("Authorization"), has_certificate)
        return await handler(request)

    return check
