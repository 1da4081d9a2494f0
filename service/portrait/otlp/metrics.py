"""The metrics, pushed over OTLP, if `otlp_metrics` is set: for boxes that no Prometheus can reach.

OpenTelemetry has no bridge from prometheus_client in Python, and its own instruments cannot take over counts: the
families of a scrape are converted, as the specification describes it ("Prometheus and OpenMetrics Compatibility").
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING

from prometheus_client.core import Metric
from prometheus_client.samples import Exemplar, Sample

from portrait import __version__
from portrait.errors import BadSettings
from portrait.logs import log_event
from portrait.metrics import Metrics
from portrait.otlp.exporters import check_environment, export_seconds, not_installed, open_session, service_resource
from portrait.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import Exemplar as OtlpExemplar
    from opentelemetry.sdk.metrics.export import HistogramDataPoint, MetricExporter, MetricsData
    from opentelemetry.sdk.metrics.export import Metric as OtlpMetric
    from opentelemetry.sdk.resources import Resource

logger = logging.getLogger(__name__)

EXPORTERS_LOGGER = logging.getLogger("opentelemetry.exporter.otlp.proto.http.metric_exporter")

INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"
USUAL_INTERVAL = 60_000
"""In milliseconds, as the specification has it."""

TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"


@asynccontextmanager
async def pushing_metrics(settings: Settings, metrics: Metrics) -> AsyncIterator[None]:
    """Push the metrics at an interval for the length of the block, and once more at its end; OTEL_* says where to.

    Raises:
        BadSettings: OpenTelemetry is not installed, or an OTEL_* variable asks for what is not supported.
    """
    if not settings.otlp_metrics:
        yield
        return
    seconds, push = _interval(), _open_push(metrics)
    # A thread of its own: a receiver that does not answer holds up neither the loop nor its executor.
    with ThreadPoolExecutor(1, "otlp-metrics") as thread:
        task = asyncio.create_task(_push_regularly(push, seconds, thread), name="otlp-metrics")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await asyncio.get_running_loop().run_in_executor(thread, push.close)


class Push:
    """Sends what a scrape would show. Its methods block, and are called one at a time."""

    def __init__(self, metrics: Metrics, exporter: "MetricExporter", resource: "Resource") -> None:
        self._metrics, self._exporter, self._resource = metrics, exporter, resource
        self._started = time.time_ns()
        self._failing = False
        EXPORTERS_LOGGER.addFilter(self._may_tell)

    def send(self) -> None:
        """Send all metrics once; a failure is logged, and those that follow it are not."""
        from opentelemetry.sdk.metrics.export import MetricExportResult

        sent = self._exporter.export(self._as_otlp()) is MetricExportResult.SUCCESS
        if sent and self._failing:
            log_event(logger, logging.INFO, "metrics pushed again")
        self._failing = not sent

    def close(self) -> None:
        """Send what has come since, unless the receiver is gone, and close the connection."""
        if not self._failing:
            self.send()
        EXPORTERS_LOGGER.removeFilter(self._may_tell)
        self._exporter.shutdown()

    def _may_tell(self, record: logging.LogRecord) -> bool:
        return not self._failing

    def _as_otlp(self) -> "MetricsData":
        from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        found = as_otlp(self._metrics.collect(), self._started, time.time_ns())
        scope = ScopeMetrics(InstrumentationScope("portrait", __version__), found, "")
        return MetricsData([ResourceMetrics(self._resource, [scope], "")])


def as_otlp(families: Iterable[Metric], started: int, now: int) -> list["OtlpMetric"]:
    """The families of a scrape as OTLP's metrics, by the names of their series; times in ns since the epoch.

    Counts are cumulative, from `started` on.
    """
    from opentelemetry.sdk.metrics.export import AggregationTemporality, Gauge, Histogram, NumberDataPoint, Sum
    from opentelemetry.sdk.metrics.export import Metric as OtlpMetric

    since_started = AggregationTemporality.CUMULATIVE
    found = list[OtlpMetric]()
    for family in families:
        name, text, samples = family.name, family.documentation, family.samples
        if not samples:
            continue
        points = [NumberDataPoint(sample.labels, started, now, float(sample.value)) for sample in samples]
        if family.type == "histogram":
            histogram = Histogram(_histogram_points(samples, started, now), since_started)
            found.append(OtlpMetric(name, text, "", histogram))
        elif family.type == "counter":
            found.append(OtlpMetric(f"{name}_total", text, "", Sum(points, since_started, is_monotonic=True)))
        else:
            found.append(OtlpMetric(name, text, "", Gauge(points)))
    return found


def _histogram_points(samples: Iterable[Sample], started: int, now: int) -> list["HistogramDataPoint"]:
    """A point for each set of labels: Prometheus' buckets count all that is smaller as well, OTLP's do not."""
    from opentelemetry.sdk.metrics.export import HistogramDataPoint

    series: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in samples:
        named = tuple((name, value) for name, value in sample.labels.items() if name != "le")
        series.setdefault(named, []).append(sample)
    points = list[HistogramDataPoint]()
    for labels, each in series.items():
        buckets = [sample for sample in each if sample.name.endswith("_bucket")]
        (total,) = [sample.value for sample in each if sample.name.endswith("_sum")]
        counts = [0, *(int(sample.value) for sample in buckets)]
        points.append(
            HistogramDataPoint(
                attributes=dict(labels),
                start_time_unix_nano=started,
                time_unix_nano=now,
                count=counts[-1],
                sum=total,
                bucket_counts=[larger - smaller for smaller, larger in pairwise(counts)],
                explicit_bounds=[float(sample.labels["le"]) for sample in buckets[:-1]],
                min=None,  # type: ignore[arg-type]  # both are optional in OTLP, and not known here
                max=None,  # type: ignore[arg-type]
                exemplars=[_exemplar(sample.exemplar) for sample in buckets if sample.exemplar],
            )
        )
    return points


def _exemplar(exemplar: Exemplar) -> "OtlpExemplar":
    from opentelemetry.sdk.metrics import Exemplar as OtlpExemplar

    trace, span = int(exemplar.labels["trace_id"], 16), int(exemplar.labels["span_id"], 16)
    return OtlpExemplar({}, exemplar.value, int(float(exemplar.timestamp or 0) * 1e9), span, trace)


async def _push_regularly(push: Push, seconds: float, thread: ThreadPoolExecutor) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await asyncio.get_running_loop().run_in_executor(thread, push.send)
        except Exception:  # as with a scrape, the next one may succeed
            logger.exception("pushing metrics failed")


def _open_push(metrics: Metrics) -> Push:
    check_environment("METRICS")
    if (value := os.environ.get(TEMPORALITY, "")).lower() not in ("", "cumulative"):
        raise BadSettings(f"got {TEMPORALITY}={value!r}, expected cumulative, as Prometheus counts")
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    except ImportError as error:
        raise not_installed("PORTRAIT_OTLP_METRICS", error) from error
    exporter = OTLPMetricExporter(timeout=export_seconds("METRICS"), session=open_session())
    return Push(metrics, exporter, service_resource())


def _interval() -> float:
    """Seconds from one push to the next."""
    text = os.environ.get(INTERVAL, "") or str(USUAL_INTERVAL)
    with suppress(ValueError):
        if 1000 <= (milliseconds := float(text)) <= 86_400_000:
            return milliseconds / 1000
    raise BadSettings(f"got {INTERVAL}={text!r}, expected milliseconds from 1000 to 86400000")
