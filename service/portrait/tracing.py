"""Traces: one OpenTelemetry span for each session, if `tracing` is set. OpenTelemetry is imported only then."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from portrait import __version__
from portrait.errors import BadSettings
from portrait.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

Fields = Mapping[str, str | int | float | bool]
"""Attributes of an event or a span; their names are prefixed with `portrait.`."""

PROTOCOL = "http/protobuf"

EXPORT_SECONDS = 3.0
"""How long one export may take, retries included, unless OTEL_EXPORTER_OTLP_TIMEOUT is set: a collector that is gone
must not delay the service's end by the standard 10 s, after which `docker stop` kills."""


class SessionSpan:
    """The OpenTelemetry span of one session."""

    def __init__(self, span: "Span") -> None:
        self._span = span

    def event(self, name: str, fields: Fields) -> None:
        """Add an event at the current time."""
        self._span.add_event(name, _prefixed(fields))

    def end(self, fields: Fields, failed: bool) -> None:
        """End the span with attributes that say how the session ended; `failed` marks it as an error."""
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attributes(_prefixed(fields))
        if failed:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class Traces:
    """Opens one span per session."""

    def __init__(self, tracer: "Tracer") -> None:
        self._tracer = tracer

    def open(self, session_id: str, parent: str | None) -> SessionSpan:
        """Open the span of a session, as a child of the caller's where `parent` is a W3C `traceparent`."""
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # An empty context: the span's parent is the caller's or none, never whichever span this task is in.
        context = TraceContextTextMapPropagator().extract({"traceparent": parent} if parent else {}, Context())
        attributes = {"session.id": session_id}
        return SessionSpan(self._tracer.start_span("session", context, kind=SpanKind.SERVER, attributes=attributes))


@asynccontextmanager
async def open_tracing(settings: Settings) -> AsyncIterator[Traces | None]:
    """What opens the spans; None unless `settings.tracing`. OTEL_* configures the rest; at the end the last are sent.

    Raises:
        BadSettings: OpenTelemetry is not installed, or an OTEL_* variable asks for what is not supported.
    """
    if not settings.tracing:
        yield None
        return
    provider = _open_provider()
    try:
        yield Traces(provider.get_tracer("portrait", __version__))
    finally:
        await asyncio.to_thread(provider.shutdown)


def _open_provider() -> "TracerProvider":
    _check_environment()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise BadSettings(
            f"PORTRAIT_TRACING=True: {error.name} is not installed; run pip install 'portrait-server[tracing]'"
        ) from error
    ours = Resource.create({"service.name": "portrait", "service.version": __version__})
    limited = _first_of("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")[1]
    exporter = OTLPSpanExporter(timeout=None if limited else EXPORT_SECONDS)
    # A service name from the environment takes precedence.
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _check_environment() -> None:
    """Refuse at the start what would otherwise fail at every export."""
    name, value = _first_of("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    if value and value != PROTOCOL:
        raise BadSettings(f"got {name}={value!r}, expected {PROTOCOL}")
    name, value = _first_of("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    if value and not value.startswith(("http://", "https://")):
        raise BadSettings(f"got {name}={value!r}, expected an address like http://collector:4318")


def _first_of(*names: str) -> tuple[str, str]:
    """(name, value) of the first variable that is set; the last name and "" when none is."""
    return next(((name, value) for name in names if (value := os.environ.get(name, ""))), (names[-1], ""))


def _prefixed(fields: Fields) -> dict[str, str | int | float | bool]:
    return {f"portrait.{name}": value for name, value in fields.items()}
