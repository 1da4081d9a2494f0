"""HttpConfig: what an operator decides about the HTTP transport."""

from dataclasses import dataclass

from portrait.settings import Settings


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """The settings of the HTTP transport."""

    host: str
    port: int
    max_body_bytes: int
    max_still_pixels: int
    origins: tuple[str, ...] = ()
    """Origins of other pages that may use the service; `*`: all."""

    @classmethod
    def of(cls, settings: Settings) -> "HttpConfig":
        """The configuration that these settings ask for."""
        return cls(
            host=settings.host,
            port=settings.http_port,
            max_body_bytes=settings.max_still_bytes,
            max_still_pixels=settings.max_still_pixels,
            origins=settings.allowed_origins,
        )
