"""The gRPC server: portrait.v1, KServe v2, health v1 and reflection on one port."""

import asyncio

import grpc
import grpc.aio
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from portrait.admission.pixel_budget import PixelBudget
from portrait.cluster.cluster import Cluster
from portrait.image.backgrounds import Backgrounds
from portrait.kserve import inference_pb2, inference_pb2_grpc
from portrait.security import Security
from portrait.sessions.broadcasts import Broadcasts
from portrait.sessions.registry import Sessions
from portrait.transports.grpc.auth import AuthInterceptor, credentials
from portrait.transports.grpc.config import GrpcConfig
from portrait.transports.grpc.kserve import InferenceServicer, InferRequest
from portrait.transports.grpc.message_budget import MessageBudget
from portrait.transports.grpc.service import SegmentationServicer
from portrait.transports.grpc.validation import MOST_METADATA_BYTES, ValidationInterceptor
from portrait.transports.grpc.watch import Watchers
from portrait.v1 import segmentation_pb2, segmentation_pb2_grpc

SERVICE = segmentation_pb2.DESCRIPTOR.services_by_name["SegmentationService"].full_name
PARSERS = {inference_pb2.ModelInferRequest.DESCRIPTOR.full_name: InferRequest.parse}
INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

# HTTP/2 windows bound memory, not latency: by default a client is megabytes ahead of a busy stream. These keep it to
# about 256 KB, two or three frames of 720p JPEG; the slot does the rest. With a window smaller than a frame the server
# would spend a third more on each frame, for the WINDOW_UPDATE frames it needs.
WINDOW_OPTIONS = [
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 262_144),
    ("grpc.http2.write_buffer_size", 65536),
]

RECEIVED = 2
"""gRPC receives messages of up to this many times the largest legal one, so that ours refuses them, with details."""

PING_INTERVAL_MS = 2000
"""A client may ping as often as this, with or without a call; Go clients commonly do so every 10 s. After three pings
that come sooner the connection is closed (GOAWAY, ENHANCE_YOUR_CALM, "too_many_pings")."""

KEEPALIVE_OPTIONS = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),  # else a ping without a call is allowed every two hours
    ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MS),
]

BOUND_OPTIONS = [
    ("grpc.max_allowed_incoming_connections", 1000),
    ("grpc.max_concurrent_streams", 100),  # of one connection
    ("grpc.max_connection_idle_ms", 300_000),  # a connection without a call; clients reconnect by themselves
    ("grpc.server_handshake_timeout_ms", 10_000),
    # Between a soft and a hard bound gRPC refuses at random; equal ones make it one bound.
    ("grpc.max_metadata_size", MOST_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MOST_METADATA_BYTES),
]
"""What a client may hold open or send, without credentials too."""

SPARE_CALLS = 64
"""Calls beside those that may hold a session: health, models, refusals."""


class GrpcServer:
    """A server that is bound from its construction on and serves for the length of its block.

    What is open at the end of the block is cut. Without `security` everyone may call. `broadcasts` are the named
    streams that may be watched, `cluster` the other pods, which ask this one for its streams and are asked for theirs.

    Raises:
        OSError: the address cannot be bound.
    """

    def __init__(
        self,
        config: GrpcConfig,
        sessions: Sessions,
        backgrounds: Backgrounds,
        budget: PixelBudget,
        security: Security | None = None,
        broadcasts: Broadcasts | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        interceptors = [
            *([AuthInterceptor(security, sessions.metrics)] if security else []),
            ValidationInterceptor(
                config.max_message_bytes, MessageBudget(config.max_bytes_in_flight), PARSERS, sessions.metrics
            ),
        ]
        self._server = grpc.aio.server(
            interceptors=interceptors,
            options=[
                ("grpc.max_receive_message_length", RECEIVED * config.max_message_bytes),
                ("grpc.so_reuseport", int(config.shared_port)),
                *WINDOW_OPTIONS,
                *KEEPALIVE_OPTIONS,
                *BOUND_OPTIONS,
            ],
            maximum_concurrent_rpcs=sessions.limit + SPARE_CALLS,
        )
        self._health = health.aio.HealthServicer()
        self._stopping: asyncio.Task[None] | None = None
        named = broadcasts or Broadcasts(sessions.limit, sessions.shared)
        self._watchers = Watchers(sessions, named, security or Security.allow_all(), config.idle_seconds, cluster)
        segmentation_pb2_grpc.add_SegmentationServiceServicer_to_server(
            SegmentationServicer(config, sessions, backgrounds, budget, self._watchers, security), self._server
        )
        inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
            InferenceServicer(sessions, budget, config.max_still_pixels), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, INFERENCE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server, _known_together())
        certificates = security.certificates if security is not None else None
        self.port = self._bind(config.host, config.port, credentials(certificates) if certificates else None)
        """The TCP port in use; of interest when 0 was asked for."""
        if config.shared_port:  # the other workers ask this one for its streams
            self._server.add_insecure_port(f"unix:{sessions.shared.grpc_socket(sessions.shared.index)}")
        if cluster is not None:  # and so do the other pods
            tls = cluster.tls
            trusted = grpc.ssl_server_credentials([(tls.key, tls.certificate)], tls.authority, require_client_auth=True)
            self._bind(cluster.config.address, cluster.config.grpc_port, trusted)

    def _bind(self, host: str, port: int, trusted: grpc.ServerCredentials | None) -> int:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if trusted is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, trusted)
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen on {address}: {error}") from error

    async def __aenter__(self) -> "GrpcServer":
        """Accept calls."""
        await self._server.start()
        for name in ("", SERVICE, INFERENCE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cut what is open and close the port."""
        await self._server.stop(grace=0.5)
        if self._stopping is not None:
            await self._stopping
        self._watchers.close()

    async def report_not_serving(self) -> None:
        """Answer health checks with NOT_SERVING from now on."""
        await self._health.enter_graceful_shutdown()

    def refuse_connections(self, seconds: float) -> None:
        """Leave the port to the other processes that share it; open calls may go on for `seconds`.

        Otherwise the kernel would keep giving this process its share of the new connections, to be refused.
        """
        self._stopping = asyncio.create_task(self._server.stop(grace=seconds + 1.0), name="grpc-stop")


def _known_together() -> DescriptorPool:
    """A pool of all that reflection tells of: KServe's messages are not in protobuf's own."""
    pool = DescriptorPool()

    def add(file: FileDescriptor) -> None:
        for needed in file.dependencies:
            add(needed)
        pool.AddSerializedFile(file.serialized_pb)

    for module in (segmentation_pb2, inference_pb2, health_pb2, reflection_pb2):
        add(module.DESCRIPTOR)
    return pool
