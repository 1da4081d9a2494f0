"""The composition root: builds everything, owns the order of start and stop."""

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import cv2

from portrait import __version__
from portrait.backgrounds import Backgrounds
from portrait.logs import log_event
from portrait.metrics import Metrics
from portrait.security import Certificates, Security, open_security
from portrait.segmenters import Models, load_models, warm
from portrait.sessions import Sessions
from portrait.settings import Settings
from portrait.tracing import open_tracing
from portrait.transports.grpc import serve_grpc
from portrait.transports.http import HttpRoutes, Stills, Trust, serve_http
from portrait.transports.webrtc import serve_webrtc
from portrait.transports.webrtc.ice import IceServers

logger = logging.getLogger(__name__)

CODEC_THREADS = 4
"""aiortc encodes on the loop's default executor; the standard one grows to 36 threads."""

SWITCH_INTERVAL = 2e-4
"""Seconds. A busy Python thread makes every inference wait this long for the GIL; the standard is 5 ms. What that is
worth stands in docs/tuning.md."""

MESSAGE_MARGIN = 64 * 1024
"""Bytes of a gRPC message besides its picture."""


@dataclass(frozen=True)
class Running:
    """A service that accepts work."""

    settings: Settings
    models: Models
    sessions: Sessions
    http_port: int
    grpc_port: int


@asynccontextmanager
async def run_service(settings: Settings) -> AsyncIterator[Running]:
    """The whole service for the length of the block; drains at its end.

    Stops in this order: readiness and gRPC health say no; new sessions are refused; open ones may go on for
    `drain_seconds`; the rest is ended; gRPC, WebRTC and at last HTTP, with its metrics, close.

    Raises:
        BadModel: the model cannot be used.
        BadSettings: the settings of security cannot be used, or allow what nobody has asked for.
        OSError: an address cannot be bound.
    """
    _tune_process()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(CODEC_THREADS, thread_name_prefix="codec"))
    metrics = Metrics()
    security = open_security(settings, metrics.session_refused)
    if security.certificates is not None:
        for name in security.certificates.expiries():
            metrics.certificate(name, partial(_expiry, security.certificates, name))
    models = await asyncio.to_thread(load_models, settings.model, settings.runtime)
    default = models.pick(None)
    await asyncio.to_thread(warm, default)
    metrics.identify(__version__, default.name, default.runtime)
    metrics.capacity.set(settings.max_sessions)
    backgrounds = Backgrounds(settings.backgrounds)
    lag = asyncio.create_task(_measure_lag(metrics), name="loop-lag")
    try:
        async with (
            open_tracing(settings) as tracing,
            Sessions(models, settings.max_sessions, metrics, tracing) as sessions,
            _serve(settings, sessions, backgrounds, metrics, security) as running,
        ):
            metrics.modes.list_open = sessions.list_modes
            yield running
    finally:
        lag.cancel()
        await asyncio.gather(lag, return_exceptions=True)


@asynccontextmanager
async def _serve(
    settings: Settings, sessions: Sessions, backgrounds: Backgrounds, metrics: Metrics, security: Security
) -> AsyncIterator[Running]:
    pixels = settings.max_frame_pixels
    stills = Stills(sessions, backgrounds, settings.max_still_pixels)
    async with serve_webrtc(
        sessions,
        backgrounds,
        max_frame_pixels=pixels,
        idle_seconds=settings.idle_seconds,
        ports=settings.media_port_range,
        advertised=settings.advertised,
        max_viewers=settings.max_viewers,
        ice=IceServers(settings.ice_servers, settings.turn_secret.get_secret_value(), settings.turn_seconds),
    ) as webrtc:
        http = HttpRoutes(
            sessions, backgrounds, metrics.expose, lambda: not sessions.draining, webrtc.resources.trickle
        )
        routes = [*http.routes, *stills.routes, *webrtc.routes, *Trust(security.certificates).routes]
        async with (
            serve_http(
                routes,
                host=settings.host,
                port=settings.http_port,
                max_body_bytes=settings.max_still_bytes,
                security=security,
                origins=settings.allowed_origins,
            ) as http_port,
            serve_grpc(
                sessions,
                backgrounds,
                host=settings.host,
                port=settings.grpc_port,
                max_frame_pixels=pixels,
                max_still_pixels=settings.max_still_pixels,
                max_message_bytes=max(3 * pixels, settings.max_still_bytes) + MESSAGE_MARGIN,
                idle_seconds=settings.idle_seconds,
                security=security,
            ) as grpc_server,
        ):
            try:
                log_event(
                    logger, logging.INFO, "serving", version=__version__, http_port=http_port,
                    grpc_port=grpc_server.port, model=sessions.models.default,
                )  # fmt: skip
                yield Running(settings, sessions.models, sessions, http_port, grpc_server.port)
            finally:
                await grpc_server.announce_end()
                cut = await sessions.drain(settings.drain_seconds)
                log_event(logger, logging.INFO, "drained", sessions_cut=cut)


async def wait_for_signal() -> None:
    """Wait for SIGTERM or SIGINT. A second one is answered as Python does by itself."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def stopped(number: signal.Signals) -> None:
        log_event(logger, logging.INFO, "stopping", reason=number.name)
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped, number)
    await stop.wait()


def _tune_process() -> None:
    # One thread per stream is the promise; OpenCV would start one per core for every call.
    cv2.setNumThreads(1)
    sys.setswitchinterval(SWITCH_INTERVAL)


def _expiry(certificates: Certificates, name: str) -> float:
    return certificates.expiries()[name]


async def _measure_lag(metrics: Metrics, period: float = 0.25) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + period
        await asyncio.sleep(period)
        metrics.loop_lag.observe(max(0.0, loop.time() - due))
