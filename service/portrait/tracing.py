"""Traces: one OpenTelemetry span for each session, if `tracing` is set. OpenTelemetry is imported only then."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from portrait import __version__
from portrait.otlp.exporters import check_environment, export_seconds, not_installed, open_session, service_resource
from portrait.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

Fields = Mapping[str, str | int | float | bool]
"""Attributes of an event or a span; their names are prefixed with `portrait.`."""


class SessionSpan:
    """The OpenTelemetry span of one session."""

    def __init__(self, span: "Span") -> None:
        self._span = span
        context = span.get_span_context()
        named = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
        self.exemplar = named if context.trace_flags.sampled else None
        """What leads from a measurement to this span: its ids, for an exemplar; None if it is not sent."""

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
    check_environment("TRACES")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise not_installed("PORTRAIT_TRACING", error) from error
    provider = TracerProvider(resource=service_resource(), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(timeout=export_seconds("TRACES"), session=open_session())
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _prefixed(fields: Fields) -> dict[str, str | int | float | bool]:
    return {f"portrait.{name}": value for name, value in fields.items()}
