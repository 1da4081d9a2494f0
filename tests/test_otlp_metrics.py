"""Metrics over OTLP: the same as a scrape shows; a receiver that is gone costs nothing; nothing at all when off."""

import asyncio
import signal
import socket
import sys
import time
from asyncio import timeout
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from prometheus_client.parser import text_string_to_metric_families

from portrait.client import Client
from portrait.errors import BadSettings
from portrait.metrics import Metrics
from portrait.otlp.exporters import open_session
from portrait.otlp.metrics import pushing_metrics
from portrait.settings import Settings
from tests.boxes import ended, serving
from tests.calls import jpeg
from tests.collector import collecting, plain
from tests.people import clip
from tests.timing import at_most
from tests.two_workers import scrape

EXEMPLAR = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"}


def metrics_of(request: ExportMetricsServiceRequest) -> dict[str, Any]:
    scopes = [scope for resource in request.resource_metrics for scope in resource.scope_metrics]
    return {metric.name: metric for scope in scopes for metric in scope.metrics}


def values(request: ExportMetricsServiceRequest) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What Prometheus makes of it: the value of each series, buckets counted up again."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for name, metric in metrics_of(request).items():
        if metric.WhichOneof("data") == "histogram":
            for point in metric.histogram.data_points:
                labels, count = plain(point.attributes), 0
                bounds = [f"{bound}" for bound in point.explicit_bounds] + ["+Inf"]
                for bound, more in zip(bounds, point.bucket_counts, strict=True):
                    count += more
                    found[f"{name}_bucket", tuple(sorted({**labels, "le": bound}.items()))] = count
                found[f"{name}_count", tuple(sorted(labels.items()))] = point.count
                found[f"{name}_sum", tuple(sorted(labels.items()))] = point.sum
        else:
            points = (metric.sum if metric.WhichOneof("data") == "sum" else metric.gauge).data_points
            found |= {(name, tuple(sorted(plain(point.attributes).items()))): point.as_double for point in points}
    return found


def scraped(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}


async def push_once(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> ExportMetricsServiceRequest:
    """What is pushed at the end of a service with these metrics."""
    async with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
        async with pushing_metrics(Settings(otlp_metrics=True), metrics):
            pass
        (request,) = collector.metrics
        return request


@pytest.mark.parametrize("worker", [None, "1"])
async def test_what_is_pushed_is_what_a_scrape_shows(worker: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics(worker)
    metrics.frame("grpc", "done", count=3)
    for seconds in (0.001, 0.009, 0.02, 7.0):
        metrics.frame_age("grpc", seconds, EXEMPLAR if seconds == 0.009 else None)
    metrics.limit.set(4)
    request = await push_once(metrics, monkeypatch)

    def ours(found: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> dict[Any, float]:
        return {key: value for key, value in found.items() if key[0].startswith("portrait_")}

    assert ours(values(request)) == ours(scraped(metrics.expose("")[0].decode()))
    pushed = metrics_of(request)
    frames, age = pushed["portrait_frames_total"], pushed["portrait_frame_age_seconds"]
    assert (frames.sum.is_monotonic, frames.description) == (True, "Frames by how they ended.")
    for data in (frames.sum, age.histogram):
        assert data.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        for point in data.data_points:
            assert 0 < point.start_time_unix_nano <= point.time_unix_nano
    assert "process_resident_memory_bytes" in pushed
    exemplars = [exemplar for point in age.histogram.data_points for exemplar in point.exemplars]
    assert [(each.trace_id.hex(), each.span_id.hex(), each.as_double) for each in exemplars] == [
        (EXEMPLAR["trace_id"], EXEMPLAR["span_id"], 0.009)
    ]
    assert abs(exemplars[0].time_unix_nano / 1e9 - time.time()) < 600


async def test_a_box_of_two_workers_pushes_by_itself() -> None:
    async with collecting() as collector:
        named = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.address, "OTEL_METRIC_EXPORT_INTERVAL": "1000"}
        with serving("--otlp-metrics", "--workers", "2", "--drain-seconds", "0", **named) as (process, announced):
            async with Client(announced["grpc"]) as client:
                await client.segment(jpeg(clip(64, 48, 1).frames[0]))
            async with asyncio.timeout(60):
                while len(collector.metrics) < 2:
                    await asyncio.sleep(0.1)
            shown = scraped(await asyncio.to_thread(scrape, announced["page"]))
            process.send_signal(signal.SIGTERM)
            status, log = await asyncio.to_thread(ended, process)
    assert status == 0, log
    last = {}
    for request in collector.metrics:
        about = plain(request.resource_metrics[0].resource.attributes)
        assert (about["service.name"], about["service.instance.id"]) == ("portrait", socket.gethostname())
        last |= values(request)
    frames = {key: value for key, value in shown.items() if key[0] == "portrait_frames_total"}
    assert sum(frames.values()) == 1
    assert {key: last[key] for key in frames} == frames
    assert {dict(labels)["worker"] for _, labels in last} == {"0", "1"}


async def test_a_receiver_that_is_gone_is_told_once_and_one_that_is_back_gets_all(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics()
    caplog.set_level("INFO")
    async with collecting() as collector:
        collector.status = 400  # one that is not tried again
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
        monkeypatch.setattr("portrait.otlp.metrics._interval", lambda: 0.05)
        async with pushing_metrics(Settings(otlp_metrics=True), metrics), asyncio.timeout(60):
            while collector.refused < 3:
                await asyncio.sleep(0.05)
            metrics.frame("grpc", "done", count=5)
            collector.status = 200
            while not collector.metrics:
                await asyncio.sleep(0.05)
    assert [record.getMessage() for record in caplog.records if "Failed to export" in record.getMessage()] == [
        "Failed to export metrics batch code: 400, reason: Bad Request"
    ]
    assert caplog.messages.count("metrics pushed again") == 1
    done = ("portrait_frames_total", (("reason", ""), ("result", "done"), ("transport", "grpc")))
    assert values(collector.metrics[0])[done] == 5


@pytest.mark.timing
async def test_a_receiver_that_answers_nobody_holds_up_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        named = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_METRIC_EXPORT_INTERVAL": "1000"}
        with serving("--otlp-metrics", **named) as (process, announced):
            async with Client(announced["grpc"]) as client:
                picture = jpeg(clip(64, 48, 1).frames[0])
                for _ in range(30):
                    began = time.monotonic()
                    await client.segment(picture)
                    at_most("seconds for a still", time.monotonic() - began, 1)
                    await asyncio.sleep(0.1)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            status, log = await asyncio.to_thread(ended, process)
    assert status == 0, log
    at_most("seconds from SIGTERM to the end", time.monotonic() - began, 9)
    assert log.count("Failed to export metrics batch") == 1
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "'grpc', expected http/protobuf"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "collector:4318", "'collector:4318', expected an address like"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "soon", "'soon', expected milliseconds"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "5", "'5', expected milliseconds from 1000"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta", "'delta', expected cumulative"),
    ],
)
async def test_what_cannot_be_done_is_refused_at_the_start(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings, match=f"{name}={message}"):
        async with pushing_metrics(Settings(otlp_metrics=True), Metrics()):
            pass


async def test_a_missing_package_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", None)
    with pytest.raises(BadSettings, match=r"OTLP_METRICS=True.*run pip install 'portrait-server\[tracing\]'"):
        async with pushing_metrics(Settings(otlp_metrics=True), Metrics()):
            pass


HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/x-protobuf\r\nContent-Length: 99999999999\r\n%s\r\n"


@pytest.mark.parametrize(
    ("status", "more"),
    [("200 OK", b""), ("400 Bad Request", b"Content-Encoding: gzip\r\n"), ("302 Found", b"Location: /elsewhere\r\n")],
)
async def test_a_receivers_answer_is_not_read_nor_its_redirect_followed(status: str, more: bytes) -> None:
    """One that never ended grew the process by a gigabyte in ten seconds."""
    asked, sent = list[bytes](), [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        with suppress(ConnectionError):
            writer.write(HEAD % (status.encode(), more))
            while sent[0] < 64 * 2**20:
                writer.write(bytes(2**16))
                await writer.drain()
                sent[0] += 2**16
        writer.close()

    async with timeout(30), await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/metrics"
        response = await asyncio.to_thread(open_session().post, url, data=b"x", timeout=10)
        assert (response.status_code, response.content) == (int(status[:3]), b"")
    assert asked == [b"POST /v1/metrics HTTP/1.1\r\n"]
    assert sent[0] < 32 * 2**20
