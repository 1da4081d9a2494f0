"""Authentication of HTTP requests, by the rules of portrait.security."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import web
from aiohttp.typedefs import Middleware

from portrait.security import Security

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

OPEN = ("/healthz", "/readyz", "/metrics", "/ca.crt", "/trust", "/web/page.css", "/web/page/theme.js", "/web/icon.svg")
"""Paths that need no credentials: probes and scrapes have none, and get numbers but nothing of any stream; and what a
device needs that does not trust the box's certificate yet."""


def authenticating(security: Security) -> Middleware:
    """A middleware that refuses requests without valid credentials, but for the open paths."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in OPEN:
            has_certificate = bool(request.get_extra_info("peercert"))
            security.check(request.headers.get("Authorization"), has_certificate)
        return await handler(request)

    return check
