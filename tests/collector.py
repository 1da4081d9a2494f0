"""A receiver of OTLP over HTTP, as the specification has it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Collector:
    """What has come, and where it listens. With `status` it refuses everything."""

    address: str = ""
    status: int = 200
    traces: list[ExportTraceServiceRequest] = field(default_factory=list)
    metrics: list[ExportMetricsServiceRequest] = field(default_factory=list)
    refused: int = 0

    async def take(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        if self.status != 200:
            self.refused += 1
            return web.Response(status=self.status)
        if request.path == "/v1/traces":
            self.traces.append(ExportTraceServiceRequest.FromString(await request.read()))
        else:
            self.metrics.append(ExportMetricsServiceRequest.FromString(await request.read()))
        return web.Response(body=b"", content_type="application/x-protobuf")


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector for the length of the block."""
    collector = Collector()
    application = web.Application()
    for path in ("/v1/traces", "/v1/metrics"):
        application.router.add_post(path, collector.take)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collector.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()


def plain(attributes: Any) -> dict[str, Any]:
    """OTLP's attributes as a dict."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
