"""GrpcConfig: what an operator decides about the gRPC transport."""

from dataclasses import dataclass

from portrait.settings import Settings

MESSAGE_MARGIN = 64 * 1024
"""Bytes of a message besides its picture."""

LARGE_MESSAGES = 8
"""Messages of the largest legal size in memory at once, as many as bodies over HTTP."""


@dataclass(frozen=True, slots=True)
class GrpcConfig:
    """The settings of the gRPC transport."""

    host: str
    port: int
    max_frame_pixels: int
    max_still_pixels: int
    max_message_bytes: int
    """Bytes of the largest legal message."""
    idle_seconds: float
    """A stream ends after this long without a frame, or with a result that the client does not read."""
    shared_port: bool = False
    """Whether several processes listen on the port, each for its share of the connections (SO_REUSEPORT)."""

    @property
    def max_bytes_in_flight(self) -> int:
        """Bytes of messages that have been received and are not done with, of all calls together."""
        return LARGE_MESSAGES * self.max_message_bytes

    @classmethod
    def of(cls, settings: Settings, *, shared_port: bool) -> "GrpcConfig":
        """The configuration that these settings ask for."""
        return cls(
            host=settings.host,
            port=settings.grpc_port,
            max_frame_pixels=settings.max_frame_pixels,
            max_still_pixels=settings.max_still_pixels,
            max_message_bytes=max(3 * settings.max_frame_pixels, settings.max_still_bytes) + MESSAGE_MARGIN,
            idle_seconds=settings.idle_seconds,
            shared_port=shared_port,
        )
