"""Session: one stream's life."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Generic, Protocol, TypeVar

from portrait.admission.capacity import SETTLED_SECONDS
from portrait.admission.cost_model import Demand
from portrait.admission.quality import EXACT_RATE, SLOW_RATE, Delivery, Quality
from portrait.core.compositors import Compositor, Options, open_compositor
from portrait.core.mask_reuse import Carried
from portrait.core.pipeline import GAP, Codec, Pipeline, Recorder
from portrait.core.segmenters import Model
from portrait.errors import BadOption, BadPicture, PortraitError, SegmentationHangs
from portrait.image.frame import Frame
from portrait.image.mask import Mask
from portrait.logs import log_event
from portrait.sessions.counters import Counters, first_demand
from portrait.sessions.watched_thread import WatchedThread

logger = logging.getLogger(__name__)

P = TypeVar("P")
W = TypeVar("W")


class Counting(Recorder, Protocol):
    """What a session asks of metrics, besides stages."""

    def frame(self, transport: str, result: str, reason: str = "", count: int = 1) -> None:
        """Count frames by what became of them."""

    def frame_age(self, transport: str, seconds: float) -> None:
        """Note how old a result is."""

    def carried(self, reason: str) -> None:
        """Count a result with the mask of an earlier frame."""

    def hung(self, transport: str) -> None:
        """Count a session whose thread was given up."""


class Span(Protocol):
    """What a session asks of tracing."""

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Note a life event."""

    def end(self, fields: Mapping[str, Any], failed: bool) -> None:
        """Say what became of the session."""


@dataclass(frozen=True, slots=True)
class Turn(Generic[W]):
    """One frame's way through a session."""

    wire: W
    """What the codec made of the result."""
    failure: Exception | None
    """Why the mask is empty, if segmentation failed."""
    waited: float
    """Seconds from arrival to the start of the work."""
    worked: float
    """Seconds of work."""
    quality: Quality = Quality.FULL
    """The quality that was in force."""
    carried: Carried = ""
    """Why the mask is an earlier frame's, if it is."""


HANG_SECONDS = 20.0
"""Far more than the largest still takes on the slowest box."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What it is for, and what it gets while the box is short of time."""

    delivery: Delivery = Delivery.LIVE
    in_force: Callable[[], Quality] = lambda: Quality.FULL
    """The quality of live streams now."""
    smaller: Model | None = None
    """A cheaper model with masks of the same size."""
    hang_seconds: float = HANG_SECONDS
    """A frame that takes so long hangs."""

    @property
    def quality(self) -> Quality:
        """What this session gets now."""
        return self.in_force() if self.delivery is Delivery.LIVE else Quality.FULL

    @property
    def rate(self) -> float:
        """Frames per second that may be taken; 0: all."""
        match self.delivery:
            case Delivery.LIVE:
                return SLOW_RATE if self.in_force() >= Quality.SLOWER else 0.0
            case Delivery.EXACT:
                return EXACT_RATE if self.in_force() > Quality.FULL else 0.0
        return 0.0


class Session(Generic[P, W]):
    """One stream: its thread, its pipeline with its own prior, its numbers. Opened by `Sessions.open` (sessions.py)."""

    def __init__(
        self,
        name: str,
        transport: str,
        model: Model,
        options: Options,
        codec: Codec[P, W],
        counting: Counting,
        terms: Terms,
        open_span: Callable[[str], Span],
    ) -> None:
        self.id = name
        self.transport, self.model = transport, model
        self.opened = time.time()
        self._terms, self._opened, self._next_turn = terms, time.monotonic(), 0.0
        self._believed: float | None = None
        self.numbers = Counters()
        self._codec, self._counting = codec, counting
        # One value, replaced whole: the session's thread never sees new options with an old compositor.
        self._output: tuple[Options, Compositor] = options, self.check(options)
        self._span = open_span(self.short_id)
        self._thread = WatchedThread(f"session-{self.id[:6]}", terms.hang_seconds, self._give_up)
        self._pipeline: Pipeline | None = None
        self._reset = False
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._leaving: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    @property
    def short_id(self) -> str:
        """What logs and traces call the session. They are read by more people than may end it, which the id allows."""
        return self.id[:6]

    @property
    def options(self) -> Options:
        """How the result looks."""
        return self._output[0]

    def check(self, options: Options) -> Compositor:
        """Refuse options that `change` would refuse; the compositor of the others.

        Raises:
            BadOption: an unknown mode, one the transport cannot carry, or an option missing.
        """
        compositor = open_compositor(options)
        if options.mode not in self._codec.modes:
            raise BadOption(
                "mode", f"{self.transport} cannot carry {options.mode!r}; expected one of {[*self._codec.modes]}"
            )
        return compositor

    @property
    def demand(self) -> Demand:
        """What it asks for, by what has arrived so far."""
        numbers, delivery = self.numbers, self._terms.delivery
        first = first_demand(self.transport, self.options.mode, self.model.name, delivery)
        return replace(
            first,
            pixels=numbers.width * numbers.height or first.pixels,
            rate=first.rate if self._believed is None else max(self._believed, numbers.arriving(time.monotonic())),
        )

    def believe(self) -> None:
        """Take what arrives now for all it asks for, until more does."""
        if self.settled:
            self._believed = self.numbers.arriving(time.monotonic())

    @property
    def settled(self) -> bool:
        """Whether it has run long enough to be taken for what it does."""
        return time.monotonic() - self._opened > SETTLED_SECONDS

    @property
    def done_rate(self) -> float:
        """Results per second."""
        return self.numbers.rate(time.monotonic())

    @property
    def age(self) -> float | None:
        """Seconds from arrival to result of its last frame; None when it is not live or none came lately."""
        recent = self.numbers.recent
        is_live = self._terms.delivery is Delivery.LIVE and recent and time.monotonic() - recent[-1] < 1.0
        return self.numbers.latency if is_live else None

    async def pace(self) -> None:
        """Wait until the next frame may be taken: at once, unless there is too much to do for every one of them."""
        if rate := self._terms.rate:
            now = time.monotonic()
            await asyncio.sleep(self._next_turn - now)
            self._next_turn = max(now, self._next_turn) + 1 / rate

    def change(self, options: Options) -> None:
        """Let the result look otherwise from the next frame on.

        Raises:
            BadOption: the options do not fit together; nothing has changed then.
        """
        mode, self._output = self.options.mode, (options, self.check(options))
        if options.mode != mode:
            self.tell("session changed", logging.DEBUG, mode=options.mode)

    def reset(self) -> None:
        """Forget the prior before the next frame."""
        self._reset = True

    def end(self, reason: str) -> None:
        """Ask whoever opened the session to close it. Idempotent: the first reason stands."""
        if not self._ended.done():
            self._ended.set_result(reason)

    async def wait_ended(self) -> str:
        """Wait until somebody asked for the end; the reason. Cancelling is safe."""
        return await asyncio.shield(self._ended)

    async def turn(self, picture: P, arrived: float) -> Turn[W]:
        """One picture through the session's thread: decode, segment, compose, encode. One at a time.

        Cancelling is safe: the work on the thread is finished unseen.

        Raises:
            BadPicture: the picture cannot be decoded; the session goes on.
            SegmentationHangs: it takes too long; the session has been ended and its thread is given up.
        """
        turn, size = await self._thread.run(self._turn, picture, arrived)
        self._count(turn, size, arrived)
        return turn

    async def skip(self, picture: P, arrived: float, reason: str) -> None:
        """Give a picture up that must be decoded all the same, since later ones build on it.

        Raises:
            SegmentationHangs: as for `turn`.
        """
        try:
            await self._thread.run(self._decode, picture, arrived, self.options)
        except BadPicture as error:
            self.refuse(error)
        else:
            self.drop(1, reason)

    def drop(self, count: int, reason: str = "newer_frame") -> None:
        """Count frames that were given up."""
        self.numbers.dropped += count
        self.numbers.arrivals.extend([time.monotonic()] * min(count, 60))
        self._counting.frame(self.transport, "dropped", reason, count)

    def refuse(self, error: PortraitError) -> None:
        """Count a frame that could not be worked on because of what came."""
        if not self.numbers.refused:
            self.tell("frame refused", logging.WARNING, reason=str(error))
        self.numbers.refused += 1
        self._counting.frame(self.transport, "refused", error.reason.lower())

    def describe(self) -> Mapping[str, Any]:
        """The session's numbers, for people and programs."""
        return {
            "id": self.id,
            "transport": self.transport,
            **self.options.describe(),
            "model": self.model.name,
            "opened": round(self.opened, 3),
            **self.numbers.describe(time.monotonic()),
            "quality": self._terms.quality.name.lower(),
        }

    def leave(self, seconds: float) -> None:
        """Ask the client to go elsewhere: the session will be ended in so many seconds. Idempotent."""
        if not self._leaving.done():
            self.tell("session asked to leave", seconds=seconds)
            self._leaving.set_result(seconds)

    @property
    def leaving(self) -> bool:
        """Whether the client has been asked to go elsewhere."""
        return self._leaving.done()

    async def wait_leaving(self) -> float:
        """Wait until the client shall go elsewhere; the seconds it has. Cancelling is safe."""
        return await asyncio.shield(self._leaving)

    async def start(self, prior: Mask | None = None) -> None:
        """Open the segmenter on the session's thread; its first frame goes on from `prior`.

        Raises:
            BadOption: the prior has not the model's size.
            SegmentationHangs: it takes too long.
        """
        await self._thread.run(self._open, prior)

    async def close(self) -> None:
        """Wait for what the thread is doing, if anything, and give thread and interpreter back."""
        self.end("finished")
        await self._thread.close(self._shut)

    def _give_up(self, error: SegmentationHangs) -> None:
        self.end(str(error))
        self.tell("session hangs", logging.ERROR, reason=str(error))
        self._counting.hung(self.transport)

    def tell(self, event: str, level: int = logging.INFO, **fields: Any) -> None:
        """One event of the session's life: a line of the log, and an event of its span. Never once per frame."""
        log_event(logger, level, event, session=self.short_id, **fields)
        self._span.event(event, fields)

    def tell_end(self) -> None:
        """The last event: why it ended, and what it did."""
        numbers = self.numbers
        fields: dict[str, Any] = {"reason": self._ended.result(), **numbers.ends}
        self.tell("session closed", **fields)
        end = {"transport": self.transport, "mode": self.options.mode, "model": self.model.name}
        size = {"width": numbers.width, "height": numbers.height}
        self._span.end({**end, **size, **fields}, failed=numbers.failed > 0)

    # Both on the thread, one after the other: a start that is cancelled half-way is closed as well.

    def _open(self, prior: Mask | None) -> None:
        segmenter = self.model.open()
        smaller = self._terms.smaller
        size, open_smaller = (self.model.width, self.model.height), smaller.open if smaller else None
        # A sender that is slowed down makes gaps that say nothing of its pictures.
        gap = inf if self._terms.delivery is Delivery.EXACT else GAP
        self._pipeline = Pipeline(segmenter, size, self._counting, open_smaller, gap)
        if prior is not None and self.model.stateful:
            self._pipeline.resume(prior)

    def _shut(self) -> None:
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None

    def _turn(self, picture: P, arrived: float) -> tuple[Turn[W], tuple[int, int]]:
        assert self._pipeline is not None, "turn() before start()"
        started = time.monotonic()
        if self._reset:
            self._reset = False
            self._pipeline.reset()
        options, compositor = self._output
        frame = self._decode(picture, arrived, options)
        quality = self._terms.quality
        result = self._pipeline.run(frame, options, compositor, quality)
        wire = self._codec.encode(result, picture)
        worked = time.monotonic() - started
        turn = Turn(wire, result.failure, started - arrived, worked, quality, result.carried)
        return turn, frame.came

    def _decode(self, picture: P, arrived: float, options: Options) -> Frame:
        with self._counting.stage("decode"):
            return self._codec.decode(picture, arrived, options)

    def _count(self, turn: Turn[W], size: tuple[int, int], arrived: float) -> None:
        now, numbers = time.monotonic(), self.numbers
        if not numbers.width:
            self.tell("first frame", logging.DEBUG, width=size[0], height=size[1])
        numbers.note(now, arrived, size)
        if turn.carried:
            self._counting.carried(turn.carried)
        self._counting.frame_age(self.transport, numbers.latency)
        if turn.failure is None:
            numbers.done += 1
            self._counting.frame(self.transport, "done")
            return
        if not numbers.failed:
            self.tell("segmentation failed", logging.ERROR, reason=str(turn.failure))
        numbers.failed += 1
        reason = turn.failure.reason if isinstance(turn.failure, PortraitError) else type(turn.failure).__name__
        self._counting.frame(self.transport, "failed_closed", reason.lower())
