"""WebRTCConfig: the settings of the WebRTC transport."""

from dataclasses import dataclass, field

from portrait.settings import Settings
from portrait.transports.webrtc.turn import IceServers


@dataclass(frozen=True, slots=True)
class WebRTCConfig:
    """What the operator decides about WebRTC."""

    max_frame_pixels: int = 1920 * 1088
    """Limit of a frame that is worked on."""
    idle_seconds: float = 15.0
    """A session without a frame for this long ends."""
    port: int | None = None
    """UDP port on which media of all connections arrives, on all addresses of the machine; 0: any. None: `ports`."""
    ports: range = range(0)
    """UDP ports of which each connection takes one on each address; an empty range: any port."""
    advertised: tuple[str, ...] = ()
    """Further IP addresses by which the machine is reached."""
    max_viewers: int = 32
    """Viewers connected at once, on all workers of the box."""
    ice: IceServers = field(default_factory=IceServers)
    """STUN and TURN servers that clients are told to use."""
    tcp: bool = True
    """Whether `port` is open for ICE over TCP as well."""

    @classmethod
    def of(cls, settings: Settings) -> "WebRTCConfig":
        """Take from the service's settings what concerns WebRTC.

        Raises:
            BadSettings: the ICE servers cannot be used.
        """
        return cls(
            max_frame_pixels=settings.max_frame_pixels,
            idle_seconds=settings.idle_seconds,
            port=None if settings.media_ports else settings.media_port,
            ports=settings.media_port_range,
            advertised=tuple(settings.advertised),
            max_viewers=settings.max_viewers,
            ice=IceServers(settings.ice_servers, settings.turn_secret.get_secret_value(), settings.turn_seconds),
            tcp=settings.media_tcp,
        )
