"""Session: one stream's life, from its first frame to its end."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

from portrait.admission.capacity import Capacity, StreamLoad
from portrait.admission.cost_model import Demand
from portrait.admission.quality import EXACT_RATE, SLOW_RATE, Delivery, Quality
from portrait.core.compositors import Compositor, Options, open_compositor
from portrait.core.mask_reuse import Carried
from portrait.core.pipeline import GAP, NOBODY, Pipeline, Result
from portrait.core.presence import Presence, PresenceRule
from portrait.core.segmenters import Model
from portrait.errors import BadOption, BadPicture, PortraitError, SegmentationHangs
from portrait.image.frame import Frame, Mask
from portrait.logs import log_event
from portrait.metrics import Metrics
from portrait.sessions.presence_feed import PresenceEvent, PresenceFeed, presence_document
from portrait.sessions.watched_thread import WatchedThread
from portrait.tracing import SessionSpan

logger = logging.getLogger(__name__)

HANG_SECONDS = 20.0
"""Default timeout of the watchdog: far more than the model takes for a frame on the slowest box."""

P_in = TypeVar("P_in", contravariant=True)
W_out = TypeVar("W_out", covariant=True)
P = TypeVar("P")
W = TypeVar("W")
A = ParamSpec("A")
R = TypeVar("R")


class Codec(Protocol[P_in, W_out]):
    """A transport's conversions between the wire and frames: pure functions, run on the session's thread."""

    @property
    def modes(self) -> Collection[str]:
        """The output modes that the transport can carry."""

    def decode(self, picture: P_in, arrived: float, options: Options) -> Frame:
        """The Frame of a picture that arrived at `arrived`, in seconds of the monotonic clock.

        It need not be larger than what a result with `options` shows, nor than the model's input.

        Raises:
            BadPicture: the picture cannot be decoded or is too large.
        """

    def encode(self, result: Result, picture: P_in) -> W_out:
        """What the transport sends for the result of `picture`."""


@dataclass(frozen=True, slots=True)
class Processed(Generic[W]):
    """What a session made of one picture."""

    wire: W
    """The codec's encoding of the result."""
    failure: Exception | None
    """Why the mask is empty, if segmentation failed."""
    waited: float
    """Seconds from arrival to the start of the work."""
    worked: float
    """Seconds of work."""
    quality: Quality = Quality.FULL
    """The quality it was made with."""
    carried: Carried = ""
    """Why the mask is an earlier frame's, if it is."""
    presence: Presence = NOBODY
    """Whether a person is in the picture."""


@dataclass(slots=True)
class Counters:
    """How a session's frames ended. Written on the event loop only."""

    done: int = 0
    dropped: int = 0
    failed: int = 0
    refused: int = 0
    carried: int = 0
    """Of those done: with the mask of an earlier frame."""

    def describe(self) -> dict[str, int]:
        """The counts, by the names that the API and the logs use."""
        return {
            "frames_done": self.done,
            "frames_dropped": self.dropped,
            "frames_failed": self.failed,
            "frames_refused": self.refused,
            "frames_carried": self.carried,
        }


class Session(Generic[P, W]):
    """One stream: its thread, its pipeline with a prior of its own, its counters. Opened by `Sessions.open`.

    `assumed` is what admission charges for it before its first frame; `cheaper` is the model that stands in for `model`
    at Quality.SMALLER; with `on_change` a live session's network runs only when the contour may have moved;
    `finer` stands in for `model` while the box has CPU to spare. `stream` is
    the name that it is published under. Listeners to `feed` are told when a person comes or leaves, by the rule
    `presence`; stills tell nothing.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        options: Options,
        codec: Codec[P, W],
        *,
        assumed: Demand,
        delivery: Delivery,
        metrics: Metrics,
        capacity: Capacity,
        cheaper: Model | None = None,
        hang_seconds: float = HANG_SECONDS,
        stream: str | None = None,
        feed: PresenceFeed | None = None,
        presence: PresenceRule | None = None,
        on_change: bool = False,
        finer: Model | None = None,
        open_span: Callable[[str], SessionSpan | None] = lambda _: None,
    ) -> None:
        self.id, self.transport, self.model = name, assumed.transport, model
        self.stream, self.opened = stream, time.time()
        self.presence: Presence | None = None
        """Whether a person is in the picture; None before the first result, and of stills."""
        self._rule, self._feed = presence, None if delivery is Delivery.STILL else feed
        self._told: PresenceEvent | None = None
        self.counters = Counters()
        self.load = StreamLoad(assumed, time.monotonic())
        self._codec, self._delivery, self._cheaper = codec, delivery, cheaper
        self._metrics, self._capacity = metrics, capacity
        self._on_change = on_change and delivery is Delivery.LIVE
        self._finer = finer
        # One value, replaced whole: the session's thread never sees new options with an old compositor.
        self._output: tuple[Options, Compositor] = options, self.check(options)
        self._span = open_span(self.short_id)
        self._exemplar = self._span.exemplar if self._span else None
        self._thread = WatchedThread(f"session-{self.short_id}", hang_seconds, low_priority=delivery is Delivery.STILL)
        self._pipeline: Pipeline | None = None
        self._reset, self._hung, self._next_start = False, False, 0.0
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._leaving: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    # What it is.

    @property
    def short_id(self) -> str:
        """The name in logs and traces. They are read by more people than may end the session, which the id allows."""
        return self.id[:6]

    @property
    def options(self) -> Options:
        """How the result looks."""
        return self._output[0]

    @property
    def quality(self) -> Quality:
        """What this session gets now."""
        return self._capacity.quality if self._delivery is Delivery.LIVE else Quality.FULL

    @property
    def finer(self) -> bool:
        """Whether a finer model than its own stands in now."""
        return self._finer is not None and self._capacity.finer and self.quality is Quality.FULL

    def describe(self) -> Mapping[str, Any]:
        """The session as the API shows it."""
        now = time.monotonic()
        return {
            "id": self.id,
            "transport": self.transport,
            **self.options.describe(),
            "model": self._finer.name if self._finer is not None and self.finer else self.model.name,
            "opened": round(self.opened, 3),
            "width": self.load.width,
            "height": self.load.height,
            **self.counters.describe(),
            "frames_per_second": round(self.load.result_rate(now), 1),
            "latency_seconds": round(self.load.latency, 4),
            "quality": self.quality.name.lower(),
            "stream": self.stream,
            "presence": None if self.presence is None else presence_document(self.presence),
        }

    # Its life.

    async def start(self, prior: Mask | None = None) -> None:
        """Open the segmenter on the session's thread; the first frame continues from `prior`.

        Raises:
            BadOption: the prior does not have the model's size.
            SegmentationHangs: opening the model takes too long.
        """
        await self._run(self._open, prior)

    def end(self, reason: str) -> None:
        """Ask the task that opened the session to close it. Idempotent: the first reason counts."""
        if not self._ended.done():
            self._ended.set_result(reason)

    async def wait_ended(self) -> str:
        """Wait until `end` is called; the reason. Cancelling is safe."""
        return await asyncio.shield(self._ended)

    def leave(self, seconds: float) -> None:
        """Ask the client to go elsewhere: the session will be ended in this many seconds. Idempotent."""
        if not self._leaving.done():
            self.record_event("session asked to leave", seconds=seconds)
            self._leaving.set_result(seconds)

    @property
    def leaving(self) -> bool:
        """Whether the client has been asked to go elsewhere."""
        return self._leaving.done()

    async def wait_leaving(self) -> float:
        """Wait until the client has to be told to go elsewhere; the seconds it has. Cancelling is safe."""
        return await asyncio.shield(self._leaving)

    async def close(self) -> None:
        """Wait for the call that the thread is in, close the segmenter and end the thread."""
        self.end("finished")
        try:
            await self._thread.close(self._close_pipeline)
        except SegmentationHangs as error:
            self._record_hang(error)

    def record_event(self, event: str, level: int = logging.INFO, **fields: Any) -> None:
        """Log one event of the session's life and add it to its span. Never called for every frame."""
        log_event(logger, level, event, session=self.short_id, **fields)
        if self._span is not None:
            self._span.event(event, fields)

    def record_end(self) -> None:
        """Log why the session ended and what it did, and end its span; tell listeners that its stream has ended."""
        if self._feed is not None and self._told is not None:
            self._feed.tell(self._told.as_ended(time.time()))
        fields: dict[str, Any] = {"reason": self._ended.result(), **self.counters.describe()}
        self.record_event("session closed", **fields)
        if self._span is not None:
            kind = {"transport": self.transport, "mode": self.options.mode, "model": self.model.name}
            size = {"width": self.load.width, "height": self.load.height}
            self._span.end({**kind, **size, **fields}, failed=self.counters.failed > 0)

    def count_event(self, result: str) -> None:
        """Count an event of presence for the session's own client: "sent" or "dropped"."""
        self._metrics.event("channel", result)

    # Its options.

    def check(self, options: Options) -> Compositor:
        """The compositor of options that `change` would accept.

        Raises:
            BadOption: an unknown mode, one that the transport cannot carry, or an option is missing.
        """
        compositor = open_compositor(options)
        if options.mode not in self._codec.modes:
            raise BadOption(
                "mode", f"{self.transport} cannot carry {options.mode!r}; expected one of {[*self._codec.modes]}"
            )
        return compositor

    def change(self, options: Options) -> None:
        """Use other options from the next frame on.

        Raises:
            BadOption: the options do not fit together; nothing has changed then.
        """
        mode, self._output = self.options.mode, (options, self.check(options))
        if options.mode != mode:
            self.load.set_mode(options.mode)
            self._metrics.mode_changed(self.transport, mode, options.mode)
            self.record_event("session changed", logging.DEBUG, mode=options.mode)

    def reset(self) -> None:
        """Forget the prior before the next frame."""
        self._reset = True

    # Its frames.

    async def pace(self) -> None:
        """Wait until the next frame may be taken: at once, unless the box is short of CPU."""
        quality, rate = self._capacity.quality, 0.0
        if self._delivery is Delivery.LIVE and quality >= Quality.SLOWER:
            rate = SLOW_RATE
        elif self._delivery is Delivery.EXACT and quality > Quality.FULL:
            rate = EXACT_RATE
        if rate:
            now = time.monotonic()
            await asyncio.sleep(self._next_start - now)
            self._next_start = max(now, self._next_start) + 1 / rate

    async def process(self, picture: P, arrived: float) -> Processed[W]:
        """Decode, segment, compose and encode one picture on the session's thread. One call at a time.

        Cancelling is safe: the work is finished and its result discarded.

        Raises:
            BadPicture: the picture was refused, and counted; the session continues.
            SegmentationHangs: the model hangs; the session has been ended and its thread is abandoned.
        """
        try:
            processed, size = await self._run(self._process, picture, arrived)
        except SegmentationHangs:
            raise
        except PortraitError as error:
            self._count_refused(error)
            raise
        self._count_result(processed, size, arrived)
        return processed

    async def skip(self, picture: P, arrived: float, reason: str) -> None:
        """Drop a picture that must be decoded all the same, since later ones refer to it.

        Raises:
            SegmentationHangs: as for `process`.
        """
        try:
            await self._run(self._decode, picture, arrived, self.options)
        except BadPicture as error:
            self._count_refused(error)
        else:
            self.drop(1, reason)

    def drop(self, count: int, reason: str = "newer_frame") -> None:
        """Count frames that were dropped."""
        self.counters.dropped += count
        self.load.add_dropped(time.monotonic(), count)
        self._metrics.frame(self.transport, "dropped", reason, count)

    def _count_refused(self, error: PortraitError) -> None:
        if not self.counters.refused:
            self.record_event("frame refused", logging.WARNING, reason=str(error))
        self.counters.refused += 1
        self.load.add_refused(time.monotonic(), error.size if isinstance(error, BadPicture) else None)
        self._metrics.frame(self.transport, "refused", error.reason.lower())

    def _count_result(self, processed: Processed[W], size: tuple[int, int], arrived: float) -> None:
        if not self.counters.done and not self.counters.failed:
            self.record_event("first frame", logging.DEBUG, width=size[0], height=size[1])
        self.load.add_result(time.monotonic(), arrived, size)
        if processed.carried:
            self.counters.carried += 1
            self._metrics.carried(processed.carried)
        self._metrics.frame_age(self.transport, self.load.latency, self._exemplar)
        failure = processed.failure
        self._tell_presence(processed.presence)
        if failure is None:
            self.counters.done += 1
            self._metrics.frame(self.transport, "done")
            return
        if not self.counters.failed:
            self.record_event("segmentation failed", logging.ERROR, reason=str(failure))
        self.counters.failed += 1
        reason = failure.reason if isinstance(failure, PortraitError) else type(failure).__name__
        self._metrics.frame(self.transport, "failed_closed", reason.lower())

    def _tell_presence(self, presence: Presence) -> None:
        """Tell listeners when a person has come or left, and once at the beginning how it is."""
        if self._feed is None:
            return
        self.presence = presence
        if self._told is None or presence.present != self._told.presence.present:
            self._told = PresenceEvent(self.short_id, self.stream, self.transport, presence, time.time())
            self._feed.tell(self._told)

    async def _run(self, function: Callable[A, R], *arguments: A.args, **named: A.kwargs) -> R:
        """What `function` returns on the session's thread; a hang ends the session."""
        try:
            return await self._thread.run(function, *arguments, **named)
        except SegmentationHangs as error:
            self._record_hang(error)
            raise

    def _record_hang(self, error: SegmentationHangs) -> None:
        if not self._hung:
            self._hung = True
            self.end(str(error))
            self.record_event("session hangs", logging.ERROR, reason=str(error))
            self._metrics.hung(self.transport)

    # On the thread, one call after another: a start that is cancelled half-way is followed by its close.

    def _open(self, prior: Mask | None) -> None:
        size, open_cheaper = (self.model.width, self.model.height), self._cheaper.open if self._cheaper else None
        # The gaps that a slowed-down sender makes say nothing about its pictures.
        gap = inf if self._delivery is Delivery.EXACT else GAP
        with self._thread.watched():
            self._pipeline = Pipeline(
                self.model.open(),
                size,
                self._metrics,
                open_cheaper,
                gap,
                self._rule,
                on_change=self._on_change,
                finer=self._finer,
            )
            if prior is not None and self.model.stateful:
                self._pipeline.resume(prior)

    def _close_pipeline(self) -> None:
        if self._pipeline is not None:
            with self._thread.watched():
                self._pipeline.close()
            self._pipeline = None

    def _process(self, picture: P, arrived: float) -> tuple[Processed[W], tuple[int, int]]:
        assert self._pipeline is not None, "process() before start()"
        started = time.monotonic()
        if self._reset:
            self._reset = False
            self._pipeline.reset()
        options, compositor = self._output
        frame = self._decode(picture, arrived, options)
        quality = self.quality
        # Only the model can hang. Decoding and encoding take as long as the picture is large and the box busy.
        with self._thread.watched():
            result = self._pipeline.run(frame, options, compositor, quality, finer=self.finer)
        if result.failure is not None:
            # The frames of its traceback refer back to it and to the picture; only the collector would free them.
            result.failure.__traceback__ = None
        wire = self._codec.encode(result, picture)
        worked = time.monotonic() - started
        processed = Processed(wire, result.failure, started - arrived, worked, quality, result.carried, result.presence)
        return processed, frame.came

    def _decode(self, picture: P, arrived: float, options: Options) -> Frame:
        with self._metrics.stage("decode"):
            return self._codec.decode(picture, arrived, options)
