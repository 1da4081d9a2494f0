"""The gRPC transport: portrait.v1, KServe v2, health v1 and reflection on one port."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from portrait.image.backgrounds import Backgrounds
from portrait.kserve import inference_pb2, inference_pb2_grpc
from portrait.security import Security
from portrait.sessions.registry import Sessions
from portrait.transports.grpc.auth import Guard, credentials
from portrait.transports.grpc.kserve import InferenceServicer
from portrait.transports.grpc.service import Limits, SegmentationServicer
from portrait.transports.grpc.validation import Strict
from portrait.v1 import segmentation_pb2, segmentation_pb2_grpc

SERVICE = segmentation_pb2.DESCRIPTOR.services_by_name["SegmentationService"].full_name
INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

# HTTP/2 windows bound memory, not latency: by default a client is megabytes ahead of a busy stream. These keep it to
# about 256 KB, two or three frames of 720p JPEG; the slot does the rest. A window smaller than a frame would cost the
# server a third more for each, in rounds of "go on".
WINDOW_OPTIONS = [
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 262_144),
    ("grpc.http2.write_buffer_size", 65536),
]
TAKEN = 2
"""How many times the largest legal message gRPC takes in, so that it is refused here, with details."""

KEEPALIVE_OPTIONS = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
]

BOUND_OPTIONS = [
    ("grpc.max_allowed_incoming_connections", 1000),
    ("grpc.max_concurrent_streams", 100),  # of one connection
    ("grpc.max_connection_idle_ms", 300_000),  # a connection without a call; clients connect anew by themselves
    ("grpc.server_handshake_timeout_ms", 10_000),
]
"""What a client may hold open, without credentials too; by default all of it."""

SPARE_CALLS = 64
"""Calls beside those that may hold a session: health, models, refusals."""


@dataclass
class GrpcServer:
    """A running server."""

    port: int
    """The TCP port in use; of interest when 0 was asked for."""
    health: health.aio.HealthServicer
    server: grpc.aio.Server
    stopping: asyncio.Task[None] | None = None

    async def announce_end(self) -> None:
        """Say NOT_SERVING from now on."""
        await self.health.enter_graceful_shutdown()

    def take_no_more(self, seconds: float) -> None:
        """Give the port to the other processes that share it; calls that are open may go on for so long.

        Otherwise the kernel would go on to send every so manieth new connection here, to be refused.
        """
        self.stopping = asyncio.create_task(self.server.stop(grace=seconds + 1.0), name="grpc-stop")


@asynccontextmanager
async def serve_grpc(
    sessions: Sessions,
    backgrounds: Backgrounds,
    *,
    host: str,
    port: int,
    max_frame_pixels: int,
    max_still_pixels: int,
    max_message_bytes: int,
    idle_seconds: float,
    security: Security | None = None,
    shared_port: bool = False,
) -> AsyncIterator[GrpcServer]:
    """A server for the length of the block; what is open at its end is cut. Without `security` everybody may call.

    A shared port takes the connections the kernel gives to this one of several processes (SO_REUSEPORT).

    Raises:
        OSError: the address cannot be bound.
    """
    options = [("grpc.max_receive_message_length", TAKEN * max_message_bytes), ("grpc.so_reuseport", int(shared_port))]
    interceptors = [*([Guard(security)] if security else []), Strict(max_message_bytes)]
    server = grpc.aio.server(
        interceptors=interceptors,
        options=[*options, *WINDOW_OPTIONS, *KEEPALIVE_OPTIONS, *BOUND_OPTIONS],
        maximum_concurrent_rpcs=sessions.limit + SPARE_CALLS,
    )
    limits = Limits(max_frame_pixels, max_still_pixels, max_message_bytes, idle_seconds)
    servicer = SegmentationServicer(sessions, backgrounds, limits, security)
    segmentation_pb2_grpc.add_SegmentationServiceServicer_to_server(servicer, server)
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(InferenceServicer(sessions, max_still_pixels), server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection((SERVICE, INFERENCE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if security is None or security.certificates is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, credentials(security.certificates))
    except RuntimeError as error:
        raise OSError(f"gRPC cannot listen on {host}:{port}: {error}") from error
    await server.start()
    for name in ("", SERVICE):
        await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    running = GrpcServer(bound, health_servicer, server)
    try:
        yield running
    finally:
        await server.stop(grace=0.5)
        if running.stopping is not None:
            await running.stopping
