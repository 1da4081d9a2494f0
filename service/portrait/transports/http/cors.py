"""CORS, of the Fetch standard: which pages of other origins may read the service's answers."""

from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

EXPOSED = ("Location", "Link", "ETag", "Accept-Patch", "Accept-Post", "Retry-After", "WWW-Authenticate", "Allow")
"""Headers a page's script could not read otherwise."""

PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PATCH, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match, Accept",
    "Access-Control-Max-Age": "7200",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def is_preflight(request: web.Request) -> bool:
    """Whether it is a browser's own question before a page's request, sent without credentials."""
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


@web.middleware
async def answer_preflights(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A middleware that answers preflights before credentials are asked for: browsers send none with them."""
    if not is_preflight(request):
        return await handler(request)
    found = request.match_info
    return web.Response() if found.http_exception is not None else await found.handler(request)


def cors_headers(origins: Sequence[str]) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """A signal handler that adds the headers for pages of these origins, `*` for all, to every response."""

    async def add(request: web.Request, response: web.StreamResponse) -> None:
        if not origins:
            return
        headers, origin = response.headers, request.headers.get("Origin", "")
        if "*" in origins:
            headers["Access-Control-Allow-Origin"] = "*"
        else:
            headers.add("Vary", "Origin")
            if origin not in origins:
                return
            headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = ", ".join(EXPOSED)
        if is_preflight(request):
            headers.update(PREFLIGHT)
            if request.headers.get("Access-Control-Request-Private-Network") == "true":
                headers["Access-Control-Allow-Private-Network"] = "true"

    return add
