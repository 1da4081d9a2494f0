"""What traces and metrics that are sent over OTLP have in common: the service's resource and the use of OTEL_*.

OpenTelemetry is imported only by a service that sends one of them.
"""

import os
import socket
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

from portrait import __version__
from portrait.errors import BadSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from requests import Session

Signal = Literal["TRACES", "METRICS"]
"""The part of a variable's name that holds for one signal: OTEL_EXPORTER_OTLP_METRICS_ENDPOINT."""

PROTOCOL = "http/protobuf"

EXPORT_SECONDS = 3.0
"""How long one export may take, retries included, unless OTEL_EXPORTER_OTLP_TIMEOUT is set: a collector that is gone
must not delay the service's end by the standard 10 s, after which `docker stop` kills."""


def check_environment(signal: Signal) -> None:
    """Refuse at the start what would otherwise fail at every export.

    Raises:
        BadSettings: an OTEL_* variable asks for what is not supported.
    """
    name, value = _exporter_variable(signal, "PROTOCOL")
    if value and value != PROTOCOL:
        raise BadSettings(f"got {name}={value!r}, expected {PROTOCOL}")
    name, value = _exporter_variable(signal, "ENDPOINT")
    if value and not value.startswith(("http://", "https://")):
        raise BadSettings(f"got {name}={value!r}, expected an address like http://collector:4318")


def export_seconds(signal: Signal) -> float | None:
    """How long one export may take; None where the environment says it, which exporters read themselves."""
    return None if _exporter_variable(signal, "TIMEOUT")[1] else EXPORT_SECONDS


def open_session() -> "Session":
    """A session for an exporter that reads of an answer its status alone, and follows no redirect.

    Without it a receiver's answer, of any size, is read into memory, and decompressed.
    """
    from requests import Session

    class StatusOnly(Session):
        def send(self, request: Any, **options: Any) -> Any:
            response = super().send(request, **{**options, "stream": True})
            response.close()
            response.raw = BytesIO()
            return response

        def get_redirect_target(self, response: Any) -> None:
            """None: to follow one, or only to tell of it, its answer would be read."""

    return StatusOnly()


def service_resource() -> "Resource":
    """What all that is sent is about: this service on this machine. A name from the environment takes precedence."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    ours = {"service.name": "portrait", "service.version": __version__, "service.instance.id": socket.gethostname()}
    return Resource.create(ours).merge(OTELResourceDetector().detect())


def not_installed(setting: str, error: ImportError) -> BadSettings:
    """The error of a setting that needs the extra `tracing`, where a package of it is missing."""
    return BadSettings(f"{setting}=True: {error.name} is not installed; run pip install 'portrait-server[tracing]'")


def _exporter_variable(signal: Signal, what: str) -> tuple[str, str]:
    """(name, value) of the variable that is set for this signal, else for all signals; value "" when none is."""
    names = f"OTEL_EXPORTER_OTLP_{signal}_{what}", f"OTEL_EXPORTER_OTLP_{what}"
    return next(((name, value) for name in names if (value := os.environ.get(name, ""))), (names[-1], ""))
