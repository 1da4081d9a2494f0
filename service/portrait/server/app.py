"""Build the whole service, start it and stop it, in this order."""

import asyncio
import logging
import socket
import warnings
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

import cv2

from portrait import __version__
from portrait.admission.capacity import Capacity, Limits
from portrait.admission.cgroup import CpuGrants, cpu_budget
from portrait.admission.pixel_budget import PixelBudget
from portrait.admission.quality import Quality
from portrait.cluster.cluster import Cluster, open_cluster
from portrait.cluster.config import ClusterConfig
from portrait.core.presence import PresenceRule
from portrait.core.segmenters import Models, choose_models, warm
from portrait.image.backgrounds import Backgrounds
from portrait.logs import log_event
from portrait.metrics import DroppedLines, Metrics
from portrait.otlp.metrics import pushing_metrics
from portrait.security import Certificates, Security, open_security
from portrait.server.calibration import load_costs
from portrait.server.reload import RunningService, identify
from portrait.sessions.broadcasts import Broadcasts
from portrait.sessions.presence_feed import PresenceFeed
from portrait.sessions.registry import Sessions
from portrait.settings import Settings
from portrait.tracing import open_tracing
from portrait.transports.cameras.server import open_cameras
from portrait.transports.grpc.config import GrpcConfig
from portrait.transports.grpc.server import GrpcServer
from portrait.transports.http.box_info import BoxInfo, TrustRoutes
from portrait.transports.http.config import HttpConfig
from portrait.transports.http.events import EventRoutes
from portrait.transports.http.pod_proxy import PodProxy
from portrait.transports.http.routes import HttpRoutes
from portrait.transports.http.server import serve_http
from portrait.transports.http.stills import StillRoutes
from portrait.transports.notify.config import NotifyConfig
from portrait.transports.notify.notifier import notifying
from portrait.transports.webrtc.config import WebRTCConfig
from portrait.transports.webrtc.server import serve_webrtc
from portrait.workers.environment import tune_interpreter
from portrait.workers.shared_state import SharedState

__all__ = ["RunningService", "run_service"]

logger = logging.getLogger(__name__)

CODEC_THREADS = 4
"""Threads of the event loop's default executor, which serves files and names; the standard one grows to 36."""

LAST_WORD_SECONDS = 2.0
"""How long sessions that were ended have to tell their clients why before their connections close."""


@asynccontextmanager
async def run_service(
    settings: Settings, shared: SharedState | None = None, listening: socket.socket | None = None, restarts: int = 0
) -> AsyncIterator[RunningService]:
    """Run the whole service for the length of the block; drain it at its end.

    A worker of several gets the state and the listening HTTP socket that it shares with the others, and how often it
    was restarted.

    It stops in this order: readiness and gRPC health say no; new sessions are refused; open ones may continue for
    `drain_seconds`; those left are ended; gRPC, WebRTC and at last HTTP, with its metrics, close.

    Raises:
        BadModel: the model cannot be used.
        BadSettings: the settings of security, of events or of the cluster cannot be used, or would expose the service
            without PORTRAIT_INSECURE.
        OSError: an address cannot be bound.
    """
    _tune_process()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(CODEC_THREADS, thread_name_prefix="codec"))
    shared = shared or SharedState()
    notify_config, cluster_config = NotifyConfig.of(settings), ClusterConfig.of(settings)
    security = open_security(settings)
    metrics = _make_metrics(shared, restarts, security.certificates)
    models = await asyncio.to_thread(choose_models, settings)
    await asyncio.to_thread(warm, models)
    identify(metrics, models)
    metrics.limit.set(settings.max_sessions)
    backgrounds = Backgrounds(settings.backgrounds)
    capacity = await _measure_capacity(settings, models, shared, metrics)
    feed = PresenceFeed(metrics, settings.max_event_listeners)
    rule = PresenceRule(settings.presence_area, settings.presence_enter_seconds, settings.presence_leave_seconds)
    watch = asyncio.create_task(capacity.watch(), name="loop-lag")
    try:
        async with (
            pushing_metrics(settings, metrics),
            open_tracing(settings) as tracing,
            _open_cluster(cluster_config) as cluster,
            notifying(notify_config, feed, shared.index),
            Sessions(
                models,
                settings.max_sessions,
                metrics,
                shared,
                capacity,
                tracing,
                settings.hang_seconds,
                feed,
                rule,
                on_change=settings.segment == "on_change",
                sign_id=cluster.ids.sign if cluster else str,
            ) as sessions,
            _serve(settings, sessions, backgrounds, capacity, metrics, security, listening, cluster) as running,
        ):
            yield running
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


@asynccontextmanager
async def _serve(
    settings: Settings,
    sessions: Sessions,
    backgrounds: Backgrounds,
    capacity: Capacity,
    metrics: Metrics,
    security: Security,
    listening: socket.socket | None,
    cluster: Cluster | None,
) -> AsyncIterator[RunningService]:
    http_config = HttpConfig.of(settings)
    grpc_config = GrpcConfig.of(settings, shared_port=sessions.shared.count > 1)
    broadcasts = Broadcasts(settings.max_viewers, sessions.shared)
    async with (
        PixelBudget(settings.max_pixels_in_flight) as budget,
        serve_webrtc(sessions, backgrounds, WebRTCConfig.of(settings), security, broadcasts) as webrtc,
        open_cameras(settings, sessions, broadcasts, backgrounds) as cameras,
    ):
        grpc_server = GrpcServer(grpc_config, sessions, backgrounds, budget, security, broadcasts, cluster)
        pods = PodProxy(cluster, broadcasts, metrics) if cluster else None
        routes = [
            *HttpRoutes(
                sessions, backgrounds, budget, metrics.expose, partial(_is_ready, sessions), webrtc.patches
            ).routes,
            *StillRoutes(sessions, backgrounds, budget, http_config.max_still_pixels).routes,
            *EventRoutes(sessions.feed, security).routes,
            *webrtc.routes,
            *cameras.routes,
            *TrustRoutes(security.certificates).routes,
            *BoxInfo(security, http_config.max_body_bytes, grpc_server.port).routes,
        ]
        async with (
            serve_http(
                routes,
                http_config,
                metrics=metrics,
                security=security,
                shared=sessions.shared,
                listening=listening,
                pods=pods,
            ) as http_port,
            grpc_server,
        ):
            running = RunningService(settings, sessions, backgrounds, capacity, metrics, (http_port, grpc_server.port))
            sessions.shared.tell(ready=True)
            try:
                log_event(
                    logger, logging.INFO, "serving", version=__version__, http_port=http_port,
                    grpc_port=grpc_server.port, model=sessions.models.default,
                )  # fmt: skip
                yield running
            finally:
                await _drain(running, grpc_server)


@asynccontextmanager
async def _open_cluster(config: ClusterConfig | None) -> AsyncIterator[Cluster | None]:
    if config is None:
        yield None
        return
    async with open_cluster(config) as cluster:
        yield cluster


async def _drain(running: RunningService, grpc_server: GrpcServer) -> None:
    """Refuse new sessions, let the open ones continue for `drain_seconds`, and end those left."""
    sessions, seconds = running.sessions, running.settings.drain_seconds
    await grpc_server.report_not_serving()
    if sessions.shared.others_serve:
        grpc_server.refuse_connections(seconds)
    cut = await sessions.drain(seconds)
    await sessions.wait_closed(LAST_WORD_SECONDS)
    log_event(logger, logging.INFO, "drained", sessions_cut=cut)


def _is_ready(sessions: Sessions) -> bool:
    """Whether every transport accepts work; HTTP, which is asked, opens before gRPC."""
    own = sessions.shared.rows[sessions.shared.index]
    return own.ready and not own.draining


def _tune_process() -> None:
    # A stream uses one thread; OpenCV would start one per core for each call.
    cv2.setNumThreads(1)
    tune_interpreter()
    # Python keeps the text of each warning it has shown: a client could fill the memory with malformed headers.
    warnings.filterwarnings("ignore", module="aiohttp.multipart")


def _make_metrics(shared: SharedState, restarts: int, certificates: Certificates | None) -> Metrics:
    """The metrics of this worker, which was restarted so often, with those of its process and its certificates."""
    metrics = Metrics(str(shared.index) if shared.count > 1 else None)
    metrics.registry.register(CpuGrants())
    metrics.registry.register(DroppedLines())
    metrics.restarts.inc(restarts)
    if certificates is not None:
        for name in certificates.expiries():
            metrics.certificate(name, partial(_expiry, certificates, name))
    return metrics


def _expiry(certificates: Certificates, name: str) -> float:
    return certificates.expiries()[name]


async def _measure_capacity(settings: Settings, models: Models, shared: SharedState, metrics: Metrics) -> Capacity:
    """Measure what streams cost on this box; nothing is measured when neither admission nor quality depends on it."""
    limits = Limits(cpu_budget(), settings.cpu_share, Quality(settings.quality_steps))
    wanted = settings.cpu_share or settings.quality_steps
    costs = await asyncio.to_thread(load_costs, models, shared.folder) if wanted else None
    metrics.admitted.set(limits.budget * limits.share)
    return Capacity(costs, shared, metrics, limits)
