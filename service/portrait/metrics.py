"""Counting, for Prometheus. One registry per application; never a session id in a label."""

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
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
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

STAGES = ("decode", "segment", "compose", "encode")
TRANSPORTS = ("webrtc", "grpc", "http")
RESULTS = ("done", "dropped", "failed_closed", "refused")
USUAL = (("done", ""), ("dropped", "newer_frame"), ("failed_closed", "segmentation_failed"))
"""Results with the reasons that are counted from 0 on."""
REFUSALS = ("too_many_sessions", "out_of_cpu", "draining")

STAGE_BUCKETS = (
    .0005, .001, .002, .003, .004, .005, .0075, .01, .015, .02, .033, .05, .075, .1, .15, .25, .5, 1.0,
)  # fmt: skip
AGE_BUCKETS = (.002, .004, .006, .01, .015, .02, .03, .04, .05, .075, .1, .15, .25, .5, 1.0, 2.0, 5.0)  # fmt: skip


class Modes(Collector):
    """Open sessions by transport and mode, counted at the scrape: a session may change its mode at any time."""

    def __init__(self) -> None:
        self.list_open: Callable[[], Iterable[tuple[str, str]]] = tuple
        """Gives (transport, mode) of every open session."""

    def collect(self) -> Iterator[Metric]:
        """The gauge."""
        family = GaugeMetricFamily(
            "portrait_sessions_by_mode", "Open sessions, by output mode.", labels=["transport", "mode"]
        )
        for labels, count in sorted(Tally(self.list_open()).items()):
            family.add_metric(labels, count)
        yield family


class OfWorker:
    """A registry whose samples say which worker they are of.

    They are never summed here: a worker that starts anew counts from 0, which in a sum would look like a rise of
    all that the others have counted.
    """

    def __init__(self, registry: CollectorRegistry, worker: str) -> None:
        self._registry, self._worker = registry, worker

    def collect(self) -> Iterator[Metric]:
        """Every family, labelled."""
        for family in self._registry.collect():
            family.samples = [
                sample._replace(labels={**sample.labels, "worker": self._worker}) for sample in family.samples
            ]
            yield family


class Stage:
    """A block whose times are counted. A class: for each frame several begin, and a generator takes twice as long."""

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

    `worker` is the label of one worker of several; None in a service of one process.
    """

    def __init__(self, worker: str | None = None) -> None:
        self.registry = CollectorRegistry()
        self._exposed = self.registry if worker is None else OfWorker(self.registry, worker)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        stage = histogram(
            "portrait_stage_seconds", "Wall time of one stage of one frame.", ["stage"], buckets=STAGE_BUCKETS
        )
        cpu = counter("portrait_cpu_seconds", "CPU time of the session threads, by stage.", ["stage"])
        # Children are made once: looking a label up costs more than counting.
        self._stages = {name: (stage.labels(name), cpu.labels(name)) for name in STAGES}
        age_text = "From a frame's arrival to its result being ready to send."
        age = histogram("portrait_frame_age_seconds", age_text, ["transport"], buckets=AGE_BUCKETS)
        self._age = {name: age.labels(name) for name in TRANSPORTS}
        self._frames = counter("portrait_frames", "Frames by what became of them.", ["result", "reason", "transport"])
        self._sessions = gauge("portrait_sessions", "Open sessions.", ["transport"])
        self._opened = counter("portrait_sessions_opened", "Sessions opened.", ["transport"])
        self._refused = counter("portrait_admission_refused", "Sessions refused, by reason.", ["reason"])
        hung_text = "Sessions ended because a frame took too long; their threads are left behind."
        self._hung = counter("portrait_sessions_hung", hung_text, ["transport"])
        self.limit = gauge("portrait_sessions_limit", "Sessions admitted at once.")
        self._carried = counter("portrait_masks_carried", "Results with the mask of an earlier frame.", ["reason"])
        self._quality = gauge("portrait_quality_step", "How far quality is down; 0: full.")
        self._quality_changes = counter("portrait_quality_changes", "Steps of quality.", ["direction"])
        self._used = gauge("portrait_cpu_used_cores", "Cores in use, over a second.")
        committed_text = "Cores the open streams take at the least quality."
        self._committed = gauge("portrait_cpu_committed_cores", committed_text)
        self.admitted = gauge("portrait_cpu_admitted_cores", "Cores streams are admitted to; 0: not counted.")
        lag_text = "How late the event loop ran a timer."
        self._loop_lag = histogram("portrait_event_loop_lag_seconds", lag_text, buckets=AGE_BUCKETS)
        expiry_name = "portrait_certificate_expiry_timestamp_seconds"
        self._certificates = gauge(expiry_name, "When a certificate ends.", ["certificate"])
        self.restarts = counter("portrait_worker_restarts", "How often the supervisor started the worker again.")
        self._build = gauge("portrait_build_info", "Always 1; the version.", ["version"])
        self._model = gauge("portrait_model_info", "Always 1; the default model.", ["model", "runtime"])
        self._count_from_zero()
        self.modes = Modes()
        self.registry.register(self.modes)

    def _count_from_zero(self) -> None:
        """Make the children that are known ahead: the first of a kind would not show as a rise otherwise."""
        for name in TRANSPORTS:
            self._sessions.labels(name)
            self._hung.labels(name)
            for result, reason in USUAL:
                self._frames.labels(result, reason, name)
        for metric, labels in (
            (self._refused, REFUSALS), (self._carried, ("still", "alternate")), (self._quality_changes, ("down", "up")),
        ):  # fmt: skip
            for label in labels:
                metric.labels(label)

    def stage(self, name: str) -> Stage:
        """Measure the block as one stage: wall time and this thread's CPU time."""
        return Stage(*self._stages[name])

    def frame(self, transport: str, result: str, reason: str = "", count: int = 1) -> None:
        """Count frames that ended as `result`: one of RESULTS."""
        if count:
            self._frames.labels(result, reason, transport).inc(count)

    def frame_age(self, transport: str, seconds: float) -> None:
        """Note how old a result is."""
        self._age[transport].observe(seconds)

    def carried(self, reason: str) -> None:
        """Count a result with the mask of an earlier frame."""
        self._carried.labels(reason).inc()

    def hung(self, transport: str) -> None:
        """Count a session whose thread was given up."""
        self._hung.labels(transport).inc()

    def lag(self, seconds: float) -> None:
        """Note how late the event loop ran a timer."""
        self._loop_lag.observe(seconds)

    def quality_changed(self, quality: int, step: int) -> None:
        """Note a step down (1) or up (-1) to `quality`."""
        self._quality.set(quality)
        self._quality_changes.labels("down" if step > 0 else "up").inc()

    def capacity_used(self, used: float, committed: float) -> None:
        """Note this worker's cores."""
        self._used.set(used)
        self._committed.set(committed)

    def session_opened(self, transport: str) -> None:
        """Count a session in."""
        self._opened.labels(transport).inc()
        self._sessions.labels(transport).inc()

    def session_closed(self, transport: str) -> None:
        """Count a session out."""
        self._sessions.labels(transport).dec()

    def session_refused(self, reason: str) -> None:
        """Count a session that was not admitted."""
        self._refused.labels(reason.lower()).inc()

    def certificate(self, name: str, expiry: Callable[[], float]) -> None:
        """State when a certificate ends, in seconds of the epoch, as it is at every scrape."""
        self._certificates.labels(name).set_function(expiry)

    def identify(self, version: str, model: str, runtime: str) -> None:
        """State what is running, instead of what was."""
        self._model.clear()
        self._build.labels(version).set(1)
        self._model.labels(model, runtime).set(1)

    def expose(self, accept: str) -> tuple[bytes, str]:
        """(body, content type) of a scrape, in the format the `Accept` header prefers."""
        encoder, content_type = choose_encoder(accept)
        # An encoder asks nothing of a registry but `collect`.
        return encoder(self._exposed), content_type
