"""Traces: one span per session with what became of it; a receiver of the real protocol; nothing at all when off."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from typing import Any
from urllib.request import Request, urlopen

import aiohttp
import cv2
import grpc.aio
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from portrait.client import Client
from portrait.errors import BadSettings, Idle
from portrait.metrics import Metrics
from portrait.sessions.registry import Sessions
from portrait.settings import Settings
from portrait.tracing import Traces, open_tracing
from portrait.v1 import segmentation_pb2 as pb
from portrait.v1 import segmentation_pb2_grpc as pb_grpc
from tests.boxes import ended, serving
from tests.calls import jpeg
from tests.collector import collecting, plain
from tests.fakes import FakeModel, failing, full_mask, only
from tests.frames import GREEN, FrameCodec, make_frame
from tests.people import clip
from tests.rtc import Camera, viewer
from tests.timing import at_most

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def exported() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def sessions(model: FakeModel, exported: InMemorySpanExporter) -> Sessions:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exported))
    return Sessions(only(model), 2, Metrics(), tracing=Traces(provider.get_tracer("test")))


def the_only(exported: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exported.get_finished_spans()
    return span


async def test_a_session_is_one_span_with_what_became_of_it(exported: InMemorySpanExporter) -> None:
    async with sessions(FakeModel(full_mask), exported).open("grpc", FrameCodec(), GREEN) as session:
        for _ in range(30):
            await session.process(make_frame(size=(64, 48)), 0.0)
        session.drop(2)
        session.leave(5.0)
        assert not exported.get_finished_spans()
    span = the_only(exported)
    assert (span.name, span.kind, span.parent) == ("session", SpanKind.SERVER, None)
    assert dict(span.attributes or {}) == {
        "session.id": session.id[:6],
        "portrait.transport": "grpc",
        "portrait.mode": "color",
        "portrait.model": "fake",
        "portrait.width": 64,
        "portrait.height": 48,
        "portrait.reason": "finished",
        "portrait.frames_done": 30,
        "portrait.frames_dropped": 2,
        "portrait.frames_failed": 0,
        "portrait.frames_refused": 0,
        "portrait.frames_carried": 0,
    }
    assert span.status.status_code is StatusCode.UNSET
    # Life events, each at its time; none for a frame.
    events = ["session opened", "first frame", "session asked to leave", "session closed"]
    assert [event.name for event in span.events] == events
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.start_time <= span.events[0].timestamp <= span.events[-1].timestamp <= span.end_time


async def test_a_session_that_failed_is_an_error(exported: InMemorySpanExporter) -> None:
    async with sessions(FakeModel(failing), exported).open("grpc", FrameCodec(), GREEN) as session:
        await session.process(make_frame(), 0.0)
        await session.process(make_frame(), 0.0)
    span = the_only(exported)
    assert span.status.status_code is StatusCode.ERROR
    assert [event.name for event in span.events].count("segmentation failed") == 1


async def test_the_span_ends_with_what_ended_the_session(exported: InMemorySpanExporter) -> None:
    with pytest.raises(Idle):
        async with sessions(FakeModel(full_mask), exported).open("grpc", FrameCodec(), GREEN):
            raise Idle("no frame for 15 s")
    assert (the_only(exported).attributes or {})["portrait.reason"] == "no frame for 15 s"


@pytest.mark.parametrize(
    ("told", "trace"), [(TRACEPARENT, TRACE), ("nonsense", None), (None, None)], ids=["told", "nonsense", "not told"]
)
async def test_the_span_lies_below_its_callers(
    told: str | None, trace: str | None, exported: InMemorySpanExporter
) -> None:
    async with sessions(FakeModel(full_mask), exported).open("grpc", FrameCodec(), GREEN, traceparent=told):
        pass
    parent = the_only(exported).parent
    assert (parent and f"{parent.trace_id:032x}") == trace
    assert (parent and f"{parent.span_id:016x}") == (trace and PARENT)


async def call(page: str) -> None:
    """A camera up and its result down, until the first picture has come."""
    async with viewer(page.rstrip("/"), Camera(clip(64, 48, 2))) as browser:
        headers = {"traceparent": TRACEPARENT, "Content-Type": "application/sdp"}
        async with browser.http.post(f"{browser.url}/webrtc", data=await browser.offer(), headers=headers) as response:
            assert response.status == 201
            location = response.headers["Location"]
            await browser.take(await response.text())
        await browser.frame()
        async with browser.http.delete(browser.url + location) as response:
            assert response.status == 200


async def test_a_collector_gets_the_sessions_of_every_transport() -> None:
    """A real service, its callers' traces in the metadata of gRPC and the headers of HTTP."""
    picture = cv2.imencode(".jpg", clip(64, 48, 1).frames[0])[1].tobytes()
    async with collecting() as collector:
        named = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
        }
        with serving("--tracing", **named) as (process, announced):
            async with grpc.aio.insecure_channel(announced["grpc"]) as channel, aiohttp.ClientSession() as http:
                stub: Any = pb_grpc.SegmentationServiceStub(channel)
                request = pb.SegmentRequest(picture=pb.Picture(format=pb.PICTURE_FORMAT_JPEG, data=picture))
                await stub.Segment(request, metadata=[("traceparent", TRACEPARENT)])
                url, headers = announced["page"] + "v1/segment?mode=mask", {"traceparent": TRACEPARENT}
                async with http.post(url, data=picture, headers={**headers, "Content-Type": "image/jpeg"}) as response:
                    assert response.status == 200
            await call(announced["page"])
            exemplars = await asyncio.to_thread(exemplars_of, announced["page"])
            process.send_signal(signal.SIGTERM)
            status, log = await asyncio.to_thread(ended, process)
    assert status == 0, log
    resources = [resource for request in collector.traces for resource in request.resource_spans]
    assert resources
    for resource in resources:
        about = plain(resource.resource.attributes)
        assert about["service.name"] == "portrait"
        assert about["deployment.environment"] == "test"
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    assert [plain(span.attributes)["portrait.transport"] for span in spans] == ["grpc", "http", "webrtc"]
    for span in spans:
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
        numbers = plain(span.attributes)
        assert (numbers["portrait.width"], numbers["portrait.height"]) == (64, 48)
        assert numbers["portrait.frames_done"] >= 1
        assert f"session={numbers['session.id']}" in log, "a log line and its span are found by the same name"
        assert exemplars[numbers["portrait.transport"]] == {"trace_id": TRACE, "span_id": span.span_id.hex()}


async def test_the_metrics_of_two_workers_keep_the_ids_of_their_traces() -> None:
    picture = jpeg(clip(64, 48, 1).frames[0])
    with serving("--tracing", "--workers", "2", "--drain-seconds", "0") as (_, announced):
        async with Client(announced["grpc"]) as client:
            await client.segment(picture)
        exemplars = await asyncio.to_thread(exemplars_of, announced["page"])
    assert {*exemplars} == {"grpc"}
    assert len(exemplars["grpc"]["trace_id"]) == 32


def exemplars_of(page: str) -> dict[str, dict[str, str]]:
    """The last exemplar of each transport's age of frames, of a scrape as Prometheus asks for it."""
    request = Request(page + "metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    with urlopen(request) as response:
        families = text_string_to_metric_families(response.read().decode())
        found = dict[str, dict[str, str]]()
        for sample in (sample for family in families for sample in family.samples if sample.exemplar):
            assert sample.name == "portrait_frame_age_seconds_bucket"
            assert 0 < sample.exemplar.value <= float(sample.labels["le"])
            found[sample.labels["transport"]] = sample.exemplar.labels
        return found


@pytest.mark.parametrize("sampled", [True, False])
async def test_a_measurement_leads_to_its_trace_where_that_is_sent(sampled: bool) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    traces, told = Traces(provider.get_tracer("test")), TRACEPARENT if sampled else TRACEPARENT[:-2] + "00"
    service = Sessions(only(FakeModel(full_mask)), 2, metrics := Metrics(), tracing=traces)
    async with service.open("grpc", FrameCodec(), GREEN, traceparent=told) as session:
        await session.process(make_frame(), 0.0)
    text = metrics.expose("application/openmetrics-text; version=1.0.0")[0].decode()
    assert (f'trace_id="{TRACE}"' in text) == sampled
    assert "trace_id" not in metrics.expose("text/plain")[0].decode()


@pytest.mark.timing
async def test_a_collector_that_answers_nobody_does_not_hold_up_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with serving("--tracing", OTEL_EXPORTER_OTLP_ENDPOINT=address) as (process, announced):
            async with Client(announced["grpc"]) as client:
                await client.segment(jpeg(clip(64, 48, 1).frames[0]))
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            status, log = await asyncio.to_thread(ended, process)
    assert status == 0, log
    at_most("seconds from SIGTERM to the end", time.monotonic() - started, 9)  # the exporter's own limit is 10
    assert "Failed to export spans" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "'grpc', expected http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4318", "'collector:4318', expected an address like"),
    ],
)
async def test_what_cannot_be_done_is_refused_at_the_start(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings, match=f"{name}={message}"):
        async with open_tracing(Settings(tracing=True)):
            pass


async def test_a_missing_package_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(BadSettings, match=r"is not installed; run pip install 'portrait-server\[tracing\]'"):
        async with open_tracing(Settings(tracing=True)):
            pass


def test_nobody_else_pays_for_the_import() -> None:
    """A whole service is started and stopped."""
    program = """
import asyncio, sys
from portrait.server.app import run_service
from portrait.settings import Settings

async def main():
    async with run_service(Settings(http_port=0, grpc_port=0)):
        pass

asyncio.run(main())
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
