"""The service's Prometheus metrics. One registry for each service; a session's id is never a label."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from portrait.errors import BadPicture, PortraitError, Refused, SessionDrained, Unauthenticated
from portrait.logs import dropped_lines

STAGES = ("decode", "segment", "compose", "encode")
TRANSPORTS = ("webrtc", "grpc", "http", "camera")
SINKS = ("channel", "sse", "webhook", "mqtt", "worker")
"""Where events of presence go; "worker": to another worker or pod, whose clients listen."""
FORWARDED = ("session", "stream", "watch")
"""What other pods are asked for: a session by its id, a stream over WHEP, a stream over gRPC."""
TCP_REFUSALS = ("silent", "malformed", "unauthenticated", "too_many")
"""Why TCP connections for media are closed: see `transports.webrtc.aiortc_patches.tcp_port`."""
USUAL_RESULTS = (
    ("done", ""), ("dropped", "newer_frame"), ("failed_closed", "segmentation_failed"), ("refused", "bad_picture"),
)  # fmt: skip
"""(result, reason) of frames, shown from 0 on."""

STAGE_BUCKETS = (
    .0005, .001, .002, .003, .004, .005, .0075, .01, .015, .02, .033, .05, .075, .1, .15, .25, .5, 1.0,
)  # fmt: skip
AGE_BUCKETS = (.002, .004, .006, .01, .015, .02, .03, .04, .05, .075, .1, .15, .25, .5, 1.0, 2.0, 5.0)  # fmt: skip


class DroppedLines(Collector):
    """Log lines that this process could not write, counted at the scrape."""

    def collect(self) -> Iterator[Metric]:
        """Yield the counter."""
        text = "Log lines dropped: not read or written in time."
        yield CounterMetricFamily("portrait_log_lines_dropped", text, dropped_lines())


class Exposed:
    """What a scrape shows of a registry: no `_created` series, and with several workers a label that says which.

    Workers are never summed here: a worker that starts again counts from 0, which in a sum would look like a jump by
    all that the others have counted.
    """

    def __init__(self, registry: CollectorRegistry, worker: str | None) -> None:
        self._registry, self._worker = registry, worker

    def collect(self) -> Iterator[Metric]:
        """Every family, its samples filtered and labelled."""
        labels = {} if self._worker is None else {"worker": self._worker}
        for family in self._registry.collect():
            family.samples = [
                sample._replace(labels={**sample.labels, **labels})
                for sample in family.samples
                if not sample.name.endswith("_created")
            ]
            yield family


class Stage:
    """A block whose wall and CPU time is measured. A class, not a generator, which would take twice as long."""

    __slots__ = ("_cpu", "_started", "_wall", "_worked")

    def __init__(self, wall: Histogram, cpu: Counter) -> None:
        self._wall, self._cpu = wall, cpu

    def __enter__(self) -> None:
        self._started, self._worked = time.perf_counter(), time.thread_time()

    def __exit__(self, *_: object) -> None:
        self._cpu.inc(time.thread_time() - self._worked)
        self._wall.observe(time.perf_counter() - self._started)


class Metrics:
    """The service's metrics, under the names of docs/reference/metrics.md.

    `worker` labels the samples of one worker of several; None in a service of one process.
    """

    def __init__(self, worker: str | None = None) -> None:
        self.registry = CollectorRegistry()
        self._exposed = Exposed(self.registry, worker)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        stage = histogram(
            "portrait_stage_seconds", "Wall time of one stage of one frame.", ["stage"], buckets=STAGE_BUCKETS
        )
        cpu = counter("portrait_cpu_seconds", "CPU time of the session threads, by stage.", ["stage"])
        # Children are made once: looking up a label costs more than counting.
        self._stages = {name: (stage.labels(name), cpu.labels(name)) for name in STAGES}
        age_text = "From a frame's arrival to its result being ready to send."
        age = histogram("portrait_frame_age_seconds", age_text, ["transport"], buckets=AGE_BUCKETS)
        self._age = {name: age.labels(name) for name in TRANSPORTS}
        self._frames = counter("portrait_frames", "Frames by how they ended.", ["result", "reason", "transport"])
        self._ended: dict[tuple[str, str, str], Counter] = {}
        self._sessions = gauge("portrait_sessions", "Open sessions.", ["transport"])
        self._opened = counter("portrait_sessions_opened", "Sessions opened.", ["transport"])
        by_mode_text = "Open sessions, by output mode."
        self._by_mode = gauge("portrait_sessions_by_mode", by_mode_text, ["transport", "mode"])
        refused_text = "Requests and sessions refused, by reason."
        self._refused = counter("portrait_admission_refused", refused_text, ["reason", "transport"])
        tcp_text = "TCP connections for media closed because they were no session's, or broke the protocol."
        self._tcp_refused = counter("portrait_media_tcp_refused", tcp_text, ["reason"])
        hung_text = "Sessions ended because the model hung; their threads are abandoned."
        self._hung = counter("portrait_sessions_hung", hung_text, ["transport"])
        self.limit = gauge("portrait_sessions_limit", "Sessions admitted at once.")
        self._carried = counter("portrait_masks_carried", "Results with an earlier frame's mask.", ["reason"])
        self._quality = gauge("portrait_quality_step", "How many steps quality is down; 0: full.")
        self._quality_changes = counter("portrait_quality_changes", "Changes of quality by one step.", ["direction"])
        self._used = gauge("portrait_cpu_used_cores", "Cores in use, over the last second.")
        committed_text = "Cores that the open streams take at the lowest quality."
        self._committed = gauge("portrait_cpu_committed_cores", committed_text)
        self.admitted = gauge("portrait_cpu_admitted_cores", "Cores that streams are admitted to; 0: not counted.")
        lag_text = "How late the event loop ran a timer."
        self._loop_lag = histogram("portrait_event_loop_lag_seconds", lag_text, buckets=AGE_BUCKETS)
        expiry_name = "portrait_certificate_expiry_timestamp_seconds"
        self._certificates = gauge(expiry_name, "When a certificate expires.", ["certificate"])
        self.restarts = counter("portrait_worker_restarts", "How often the supervisor restarted the worker.")
        self._events = counter("portrait_events", "Events of presence, by what became of them.", ["sink", "result"])
        self.listeners = gauge("portrait_event_listeners", "Listeners to events of presence.")
        forwarded_text = "Requests that another pod had to answer."
        self._forwarded = counter("portrait_cluster_forwarded", forwarded_text, ["kind", "result"])
        self._build = gauge("portrait_build_info", "Always 1; the version.", ["version"])
        self._model = gauge("portrait_model_info", "Always 1; the default models.", ["model", "runtime", "use"])
        self._camera_live = gauge("portrait_camera_live", "Whether a declared camera is connected.", ["camera"])
        failures_text = "Connections to a declared camera that failed or were lost."
        self._camera_failures = counter("portrait_camera_failures", failures_text, ["camera"])
        self._count_from_zero()

    def _count_from_zero(self) -> None:
        """Create the series that are known in advance: the first count of a new series does not show as an increase."""
        for transport in TRANSPORTS:
            self._sessions.labels(transport)
            self._opened.labels(transport)
            self._hung.labels(transport)
            for result, reason in USUAL_RESULTS:
                self._frames.labels(result, reason, transport)
            for reason in (Unauthenticated.reason, *_reasons(Refused)):
                self._refused.labels(reason.lower(), transport)
        for sink in SINKS:
            for result in ("sent", "dropped", "failed"):
                self._events.labels(sink, result)
        for kind in FORWARDED:
            for result in ("answered", "failed"):
                self._forwarded.labels(kind, result)
        for metric, labels in (
            (self._carried, ("unchanged", "still", "alternate")),
            (self._quality_changes, ("down", "up")),
            (self._tcp_refused, TCP_REFUSALS),
        ):
            for label in labels:
                metric.labels(label)

    def stage(self, name: str) -> Stage:
        """Measure the block as one of STAGES: wall time and this thread's CPU time."""
        return Stage(*self._stages[name])

    def frame(self, transport: str, result: str, reason: str = "", count: int = 1) -> None:
        """Count frames that ended as `result`: done, dropped, failed_closed or refused."""
        if count:
            ended = result, reason, transport
            child = self._ended.get(ended)
            if child is None:
                child = self._ended[ended] = self._frames.labels(*ended)
            child.inc(count)

    def frame_age(self, transport: str, seconds: float, exemplar: dict[str, str] | None = None) -> None:
        """Record seconds from a frame's arrival to its result, with the ids of the session's trace as `exemplar`."""
        self._age[transport].observe(seconds, exemplar)

    def carried(self, reason: str) -> None:
        """Count a result with an earlier frame's mask."""
        self._carried.labels(reason).inc()

    def event(self, sink: str, result: str) -> None:
        """Count an event of presence for one of SINKS: sent, dropped for a newer one, or failed to arrive."""
        self._events.labels(sink, result).inc()

    def forwarded(self, kind: str, result: str) -> None:
        """Count one of FORWARDED that another pod answered, or that failed since it could not be reached."""
        self._forwarded.labels(kind, result).inc()

    def media_tcp_refused(self, reason: str) -> None:
        """Count a TCP connection for media that was closed for one of TCP_REFUSALS."""
        self._tcp_refused.labels(reason).inc()

    def hung(self, transport: str) -> None:
        """Count a session whose thread was abandoned."""
        self._hung.labels(transport).inc()

    def lag(self, seconds: float) -> None:
        """Record how late the event loop ran a timer."""
        self._loop_lag.observe(seconds)

    def quality_changed(self, quality: int, step: int) -> None:
        """Record a step down (1) or up (-1) to `quality`."""
        self._quality.set(quality)
        self._quality_changes.labels("down" if step > 0 else "up").inc()

    def capacity_used(self, used: float, committed: float) -> None:
        """Record this worker's cores: in use, and charged for at the lowest quality."""
        self._used.set(used)
        self._committed.set(committed)

    def session_opened(self, transport: str, mode: str) -> None:
        """Count an opened session."""
        self._opened.labels(transport).inc()
        self._sessions.labels(transport).inc()
        self._by_mode.labels(transport, mode).inc()

    def mode_changed(self, transport: str, before: str, after: str) -> None:
        """Count a session in another mode."""
        self._by_mode.labels(transport, before).dec()
        self._by_mode.labels(transport, after).inc()

    def session_closed(self, transport: str, mode: str) -> None:
        """Count a closed session, in the mode it had at last."""
        self._sessions.labels(transport).dec()
        self._by_mode.labels(transport, mode).dec()

    def camera_declared(self, name: str) -> None:
        """Show a declared camera, which is not connected yet."""
        self._camera_live.labels(name)
        self._camera_failures.labels(name)

    def camera_live(self, name: str, live: bool) -> None:
        """Record whether a declared camera is connected."""
        self._camera_live.labels(name).set(live)

    def camera_failed(self, name: str) -> None:
        """Count a connection to a declared camera that failed or was lost."""
        self._camera_failures.labels(name).inc()

    def refused(self, transport: str, error: PortraitError) -> None:
        """Count an error if it is a refusal. Called where errors become statuses of `transport`, and only there."""
        if isinstance(error, Refused | Unauthenticated) and not isinstance(error, SessionDrained):
            self._refused.labels(error.reason.lower(), transport).inc()

    @contextmanager
    def counting_refused(self, transport: str) -> Iterator[None]:
        """Count a picture that the block refuses before a session has it: a session counts those that it is given."""
        try:
            yield
        except BadPicture as error:
            self.frame(transport, "refused", error.reason.lower())
            raise

    def certificate(self, name: str, expiry: Callable[[], float]) -> None:
        """Show when a certificate expires: `expiry` gives seconds of the epoch at every scrape."""
        self._certificates.labels(name).set_function(expiry)

    def identify(self, version: str, models: Iterable[tuple[str, str, str]]) -> None:
        """Show the version and the default models, (name, runtime, use) of each, in place of earlier ones."""
        self._model.clear()
        self._build.labels(version).set(1)
        for name, runtime, use in models:
            self._model.labels(name, runtime, use).set(1)

    def collect(self) -> Iterator[Metric]:
        """What a scrape would show now, family by family."""
        return self._exposed.collect()

    def expose(self, accept: str) -> tuple[bytes, str]:
        """(body, content type) of a scrape, in the format the `Accept` header prefers."""
        encoder, content_type = choose_encoder(accept)
        # An encoder uses nothing of a registry but `collect`.
        return encoder(self._exposed), content_type


def _reasons(error: type[PortraitError]) -> Iterator[str]:
    """The reasons of every class below `error`."""
    for kind in error.__subclasses__():
        yield kind.reason
        yield from _reasons(kind)
