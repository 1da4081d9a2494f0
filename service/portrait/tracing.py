"""Traces: one OpenTelemetry span per session, for those who ask for it. Nobody else pays for the import."""

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
"""What an event or a span tells; the names get the prefix `portrait.` on their way out."""

PROTOCOL = "http/protobuf"

EXPORT_SECONDS = 3.0
"""How long one export may take, repetitions included, unless OTEL_EXPORTER_OTLP_TIMEOUT says otherwise: a collector
that is gone must not hold up the service's end for the standard 10 s, after which `docker stop` kills."""


class Untraced:
    """A session without a span, and all such sessions."""

    def open(self, session_id: str, parent: str | None) -> "Untraced":
        """The span of a session: this one."""
        return self

    def event(self, name: str, fields: Fields) -> None:
        """Do nothing."""

    def end(self, fields: Fields, failed: bool) -> None:
        """Do nothing."""


class Traced:
    """The span of one session."""

    def __init__(self, span: "Span") -> None:
        self._span = span

    def event(self, name: str, fields: Fields) -> None:
        """Note a life event at its time."""
        self._span.add_event(name, _prefixed(fields))

    def end(self, fields: Fields, failed: bool) -> None:
        """End the span with what became of the session; `failed` marks it as an error."""
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attributes(_prefixed(fields))
        if failed:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class Traces:
    """Opens one span for each session."""

    def __init__(self, tracer: "Tracer") -> None:
        self._tracer = tracer

    def open(self, session_id: str, parent: str | None) -> Traced:
        """The span of a session, below the caller's own where `parent` is a W3C `traceparent`."""
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # An empty context: the span belongs to the caller or to nobody, never to what this task happens to be in.
        context = TraceContextTextMapPropagator().extract({"traceparent": parent} if parent else {}, Context())
        attributes = {"session.id": session_id}
        return Traced(self._tracer.start_span("session", context, kind=SpanKind.SERVER, attributes=attributes))


@asynccontextmanager
async def open_tracing(settings: Settings) -> AsyncIterator[Traces | Untraced]:
    """What opens the spans, as `tracing` says; at the end the last ones are sent. The rest is said by OTEL_*.

    Raises:
        BadSettings: OpenTelemetry is not installed, or what OTEL_* says cannot be done.
    """
    if not settings.tracing:
        yield Untraced()
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
            f"PORTRAIT_TRACING=True: {error.name} is not installed; pip install 'portrait[tracing]'"
        ) from error
    ours = Resource.create({"service.name": "portrait", "service.version": __version__})
    limited = _first_of("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")[1]
    exporter = OTLPSpanExporter(timeout=None if limited else EXPORT_SECONDS)
    # What the environment calls the service wins.
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _check_environment() -> None:
    """Refuse at the start what would otherwise be an error of every export."""
    name, value = _first_of("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    if value and value != PROTOCOL:
        raise BadSettings(f"{name}={value!r}: expected {PROTOCOL}")
    name, value = _first_of("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    if value and not value.startswith(("http://", "https://")):
        raise BadSettings(f"{name}={value!r}: expected an address like http://collector:4318")


def _first_of(*names: str) -> tuple[str, str]:
    """(name, value) of the first variable that is set; the last with nothing when none is."""
    return next(((name, value) for name in names if (value := os.environ.get(name, ""))), (names[-1], ""))


def _prefixed(fields: Fields) -> dict[str, str | int | float | bool]:
    return {f"portrait.{name}": value for name, value in fields.items()}
