"""The HTTP server: it serves the routes of all transports on one port."""

import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from socket import socket

from aiohttp import web
from aiohttp.typedefs import Middleware

from portrait.metrics import Metrics
from portrait.security import Security
from portrait.transports.http.auth import authenticating
from portrait.transports.http.config import HttpConfig
from portrait.transports.http.connection_limits import ConnectionLimiter, is_server_fault, listen, serving
from portrait.transports.http.cors import answer_preflights, cors_headers
from portrait.transports.http.errors import errors_as_problems, refuse_repeated_parameters
from portrait.transports.http.forwarding import use_forwarded_address
from portrait.transports.http.pod_proxy import PodProxy
from portrait.transports.http.worker_proxy import open_worker_proxy, serve_other_workers
from portrait.workers.shared_state import SharedState

protocol_logger = logging.getLogger(f"{__name__}.protocol")

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

CACHING = "no-cache"
"""A page and its modules belong to one version: a browser asks each time whether its copy is current (ETag)."""


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(SECURITY_HEADERS)
    response.headers.setdefault("Cache-Control", CACHING)


@asynccontextmanager
async def serve_http(
    routes: Iterable[web.RouteDef],
    config: HttpConfig,
    *,
    metrics: Metrics | None = None,
    security: Security | None = None,
    shared: SharedState | None = None,
    listening: socket | None = None,
    pods: PodProxy | None = None,
) -> AsyncIterator[int]:
    """Serve the routes for the length of the block; gives the TCP port in use. Without `security` everyone may call.

    `metrics` counts refusals. With several workers (`shared`) each of them answers for all, and all take connections
    from one `listening` socket. With several pods (`pods`) each of them answers for all.

    Raises:
        OSError: the address cannot be bound.
    """
    routes, problems = list(routes), errors_as_problems(metrics or Metrics())
    certificates = security.certificates if security else None
    limiter = ConnectionLimiter(certificates.context() if certificates else None, protocol_logger)
    middlewares = [
        limiter.track_requests(),
        problems,
        refuse_repeated_parameters,
        answer_preflights,
        *([authenticating(security)] if security else []),
        limiter.limit_bodies(),
    ]
    protocol_logger.addFilter(is_server_fault)
    async with AsyncExitStack() as stack:
        workers: list[Middleware] = []
        if shared is not None and shared.count > 1:
            own = shared.socket(shared.index)
            await stack.enter_async_context(serve_other_workers(own, routes, [problems], config.max_body_bytes))
            workers.append((await stack.enter_async_context(open_worker_proxy(shared))).middleware)
        if pods is not None:
            await stack.enter_async_context(_serve_other_pods(pods, routes, problems, workers, config.max_body_bytes))
            middlewares.append(pods.middleware)
        application = web.Application(middlewares=[*middlewares, *workers], client_max_size=config.max_body_bytes)
        application.on_response_prepare.append(_add_headers)
        application.on_response_prepare.append(cors_headers(config.origins))
        application.add_routes(routes)
        sockets = [listening] if listening is not None else listen(config.host, config.port)
        await stack.enter_async_context(_serving(application, limiter, sockets))
        yield sockets[0].getsockname()[1]


@asynccontextmanager
async def _serve_other_pods(
    pods: PodProxy, routes: list[web.RouteDef], problems: Middleware, workers: list[Middleware], max_body_bytes: int
) -> AsyncIterator[None]:
    """Answer other pods at this one's own address. They have checked their clients' credentials."""
    cluster = pods.cluster
    limiter = ConnectionLimiter(cluster.tls.server_context(), protocol_logger)
    middlewares = [limiter.track_requests(), problems, use_forwarded_address, limiter.limit_bodies(), *workers]
    application = web.Application(middlewares=middlewares, client_max_size=max_body_bytes)
    application.add_routes([*routes, *pods.routes])
    sockets = listen(cluster.config.address, cluster.config.port, shared=True)
    async with _serving(application, limiter, sockets):
        yield


@asynccontextmanager
async def _serving(
    application: web.Application, limiter: ConnectionLimiter, sockets: Sequence[socket]
) -> AsyncIterator[None]:
    runner = web.AppRunner(
        application, access_log=None, handle_signals=False, shutdown_timeout=1.0, logger=protocol_logger
    )
    await runner.setup()
    try:
        assert runner.server is not None
        async with serving(limiter, runner.server, sockets):
            yield
    finally:
        await runner.cleanup()
