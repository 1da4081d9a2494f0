"""Session: one stream's life. Sessions: all of them, their limit and their end."""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from portrait.compositors import Compositor, Options, open_compositor
from portrait.errors import BadOption, Draining, NoSuchSession, PortraitError, TooManySessions
from portrait.pipeline import Codec, Pipeline, Recorder
from portrait.segmenters import Model, Models

logger = logging.getLogger(__name__)

P = TypeVar("P")
W = TypeVar("W")

RETRY_AFTER = 5.0
"""Seconds a refused client is told to wait."""


class Counting(Recorder, Protocol):
    """What sessions ask of metrics, besides stages."""

    def frame(self, transport: str, result: str, reason: str = "", count: int = 1) -> None:
        """Count frames by what became of them."""

    def frame_age(self, transport: str, seconds: float) -> None:
        """Note how old a result is."""

    def session_opened(self, transport: str) -> None:
        """Count a session in."""

    def session_closed(self, transport: str) -> None:
        """Count a session out."""

    def session_refused(self, reason: str) -> None:
        """Count a session that was not admitted."""


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


@dataclass(slots=True)
class Numbers:
    """A session's counts; written on the event loop only."""

    done: int = 0
    dropped: int = 0
    failed: int = 0
    width: int = 0
    height: int = 0
    latency: float = 0.0
    """Seconds from arrival to result of the last frame."""
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=60))

    def rate(self, now: float) -> float:
        """Frames per second over the last two seconds."""
        recent = [moment for moment in self.recent if now - moment < 2.0]
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 else 0.0


class Session(Generic[P, W]):
    """One stream: its thread, its pipeline with its own prior, its numbers. Opened by `Sessions.open`."""

    def __init__(self, transport: str, model: Model, options: Options, codec: Codec[P, W], counting: Counting) -> None:
        self.id = secrets.token_urlsafe(18)
        self.transport, self.model = transport, model
        self.opened = time.time()
        self.numbers = Numbers()
        self._codec, self._counting = codec, counting
        # One value, replaced whole: the session's thread never sees new options with an old compositor.
        self._output: tuple[Options, Compositor] = options, self.check(options)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"session-{self.id[:6]}")
        self._pipeline: Pipeline | None = None
        self._reset = False
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

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

    def change(self, options: Options) -> None:
        """Let the result look otherwise from the next frame on.

        Raises:
            BadOption: the options do not fit together; nothing has changed then.
        """
        self._output = options, self.check(options)

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
        """
        loop = asyncio.get_running_loop()
        turn, size = await loop.run_in_executor(self._executor, self._turn, picture, arrived)
        self._count(turn, size, arrived)
        return turn

    def drop(self, count: int, reason: str = "newer_frame") -> None:
        """Count frames that were given up."""
        self.numbers.dropped += count
        self._counting.frame(self.transport, "dropped", reason, count)

    def refuse(self, error: PortraitError) -> None:
        """Count a frame that could not be worked on because of what came."""
        self._counting.frame(self.transport, "refused", error.reason.lower())

    def describe(self) -> Mapping[str, Any]:
        """The session's numbers, for people and programs."""
        numbers = self.numbers
        return {
            "id": self.id,
            "transport": self.transport,
            "mode": self.options.mode,
            "color": self.options.color,
            "model": self.model.name,
            "opened": round(self.opened, 3),
            "width": numbers.width,
            "height": numbers.height,
            "frames_done": numbers.done,
            "frames_dropped": numbers.dropped,
            "frames_failed": numbers.failed,
            "frames_per_second": round(numbers.rate(time.monotonic()), 1),
            "latency_seconds": round(numbers.latency, 4),
        }

    async def start(self) -> None:
        """Open the segmenter on the session's thread."""
        loop = asyncio.get_running_loop()
        segmenter = await loop.run_in_executor(self._executor, self.model.open)
        self._pipeline = Pipeline(segmenter, (self.model.width, self.model.height), self._counting)

    async def close(self) -> None:
        """Wait for the turn under way, if any, and give thread and interpreter back."""
        self.end("closed")
        if self._pipeline is not None:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._pipeline.close)
            self._pipeline = None
        self._executor.shutdown(wait=False)

    def _turn(self, picture: P, arrived: float) -> tuple[Turn[W], tuple[int, int]]:
        assert self._pipeline is not None, "turn() before start()"
        started = time.monotonic()
        if self._reset:
            self._reset = False
            self._pipeline.reset()
        with self._counting.stage("decode"):
            frame = self._codec.decode(picture, arrived)
        result = self._pipeline.run(frame, *self._output)
        wire = self._codec.encode(result, picture)
        turn = Turn(wire, result.failure, started - arrived, time.monotonic() - started)
        return turn, (frame.width, frame.height)

    def _count(self, turn: Turn[W], size: tuple[int, int], arrived: float) -> None:
        now, numbers = time.monotonic(), self.numbers
        numbers.width, numbers.height = size
        numbers.latency = now - arrived
        numbers.recent.append(now)
        self._counting.frame_age(self.transport, numbers.latency)
        if turn.failure is None:
            numbers.done += 1
            self._counting.frame(self.transport, "done")
            return
        if not numbers.failed:
            logger.error("session %s: segmentation failed, failing closed: %s", self.id[:6], turn.failure)
        numbers.failed += 1
        reason = turn.failure.reason if isinstance(turn.failure, PortraitError) else type(turn.failure).__name__
        self._counting.frame(self.transport, "failed_closed", reason.lower())


class Sessions:
    """Every open session: the limit, the list, the drain."""

    def __init__(self, models: Models, limit: int, counting: Counting) -> None:
        self.models, self.limit = models, limit
        self._counting = counting
        self._open: dict[str, Session[Any, Any]] = {}
        self._draining = False
        self._none_left = asyncio.Event()
        self._none_left.set()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def draining(self) -> bool:
        """Whether new sessions are refused because the service stops."""
        return self._draining

    @asynccontextmanager
    async def open(
        self, transport: str, codec: Codec[P, W], options: Options, model: str | None = None
    ) -> AsyncIterator[Session[P, W]]:
        """A session of its own thread and interpreter, for the length of the block.

        Raises:
            BadOption: unknown model or mode, or an option missing.
            TooManySessions, Draining: nothing was made yet when these are raised.
        """
        self._admit()
        session = Session(transport, self.models.pick(model), options, codec, self._counting)
        self._open[session.id] = session
        self._none_left.clear()
        self._counting.session_opened(transport)
        logger.info("session %s: opened, %s, mode %s", session.id[:6], transport, options.mode)
        try:
            await session.start()
            yield session
        finally:
            # Shielded: a cancelled transport must still give the thread and the interpreter back.
            await asyncio.shield(self._close(session))

    def __getitem__(self, session_id: str) -> Session[Any, Any]:
        try:
            return self._open[session_id]
        except KeyError:
            raise NoSuchSession("no session of that id; it has ended or never was") from None

    def describe(self) -> list[Mapping[str, Any]]:
        """The numbers of every open session."""
        return [session.describe() for session in self._open.values()]

    async def drain(self, seconds: float) -> int:
        """Refuse new sessions, wait up to `seconds` for the open ones, then end the rest; how many that were."""
        self._draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._none_left.wait()
        except TimeoutError:
            rest = list(self._open.values())
            for session in rest:
                session.end("the service stops")
            return len(rest)
        return 0

    def _admit(self) -> None:
        refusal: TooManySessions | Draining | None = None
        if self._draining:
            refusal = Draining("the service stops; connect elsewhere or later", RETRY_AFTER)
        elif len(self._open) >= self.limit:
            refusal = TooManySessions(f"{self.limit} of {self.limit} sessions are open", RETRY_AFTER)
        if refusal is not None:
            self._counting.session_refused(refusal.reason)
            raise refusal

    async def _close(self, session: Session[Any, Any]) -> None:
        try:
            await session.close()
        finally:
            del self._open[session.id]
            if not self._open:
                self._none_left.set()
            self._counting.session_closed(session.transport)
            numbers = session.numbers
            logger.info(
                "session %s: closed, %d frames done, %d dropped, %d failed: %s",
                session.id[:6], numbers.done, numbers.dropped, numbers.failed, await session.wait_ended(),
            )  # fmt: skip
