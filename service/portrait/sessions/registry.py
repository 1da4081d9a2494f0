"""Sessions: the registry of all open sessions. It admits them, lists them and drains them."""

import asyncio
import logging
import time
from asyncio import timeout
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

from portrait.admission.capacity import RETRY_AFTER, Capacity, StreamLoad
from portrait.admission.cost_model import NOMINAL_PIXELS, Demand, assumed_demand, encoding_demand, viewer_demand
from portrait.admission.quality import Delivery
from portrait.core.compositors import Options
from portrait.core.presence import PresenceRule
from portrait.core.segmenters import Model, Models
from portrait.core.segmenters.pool import SegmenterPool
from portrait.errors import Draining, NoSuchSession, PortraitError, TooManySessions
from portrait.image.frame import Mask
from portrait.logs import log_event
from portrait.metrics import Metrics
from portrait.sessions.presence_feed import PresenceFeed
from portrait.sessions.session import HANG_SECONDS, Codec, Session
from portrait.tracing import Traces
from portrait.workers.ids import new_id
from portrait.workers.shared_state import SharedState

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 10.0
"""How long the end of the service waits for the frames in work. Only a model that hangs takes longer."""

P = TypeVar("P")
W = TypeVar("W")


class Sessions:
    """Every open session of this worker.

    An async context manager: at its end every session has been ended and its thread closed.
    """

    def __init__(
        self,
        models: Models,
        limit: int,
        metrics: Metrics,
        shared: SharedState | None = None,
        capacity: Capacity | None = None,
        tracing: Traces | None = None,
        hang_seconds: float = HANG_SECONDS,
        feed: PresenceFeed | None = None,
        presence: PresenceRule | None = None,
        *,
        on_change: bool = False,
        sign_id: Callable[[str], str] = str,
    ) -> None:
        """With `on_change` live sessions run their network only when the contour may have moved.

        `sign_id` gives the id by which other pods find what this worker calls by a given one.
        """
        self._sign_id = sign_id
        self.models, self.limit, self.metrics = models, limit, metrics
        self.shared = shared or SharedState()
        self._capacity = capacity or Capacity(None, self.shared, metrics)
        self._tracing, self._hang_seconds, self._on_change = tracing, hang_seconds, on_change
        self.feed = feed or PresenceFeed(metrics)
        self._presence = presence
        self._open: dict[str, Session[Any, Any]] = {}
        self._pools: dict[Model, SegmenterPool] = {}
        """For stills."""
        self._draining = False
        self._none_left = asyncio.Event()
        self._none_left.set()

    async def __aenter__(self) -> "Sessions":
        """Accept sessions."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """End every session and wait until all are closed. Cancelled transport tasks do not wait for theirs."""
        await self.drain(0.0)
        if not await self.wait_closed(CLOSE_SECONDS):
            logger.error("%d sessions hang and are abandoned", len(self._open))
        for pool in self._pools.values():
            pool.close()

    def __len__(self) -> int:
        return len(self._open)

    def __getitem__(self, session_id: str) -> Session[Any, Any]:
        try:
            return self._open[session_id]
        except KeyError:
            raise NoSuchSession("no session has this id, or it has ended") from None

    def new_id(self) -> str:
        """Make an id for a session or viewer of this worker."""
        return self._sign_id(new_id(self.shared.index))

    def milliseconds(self, model: str) -> float | None:
        """Milliseconds of CPU in which this machine segments a frame of 640x480; None if it was not measured."""
        return self._capacity.milliseconds(model)

    def describe(self) -> list[Mapping[str, Any]]:
        """Every open session as the API shows it."""
        return [session.describe() for session in self._open.values()]

    @asynccontextmanager
    async def open(
        self,
        transport: str,
        codec: Codec[P, W],
        options: Options,
        model: str | None = None,
        *,
        prior: Mask | None = None,
        delivery: Delivery = Delivery.LIVE,
        pixels: int = NOMINAL_PIXELS,
        may_be_finer: bool = False,
        traceparent: str | None = None,
        stream: str | None = None,
    ) -> AsyncIterator[Session[P, W]]:
        """A session with a thread and an interpreter of its own, for the length of the block.

        Args:
            transport: who opens it, as metrics and the cost model call it.
            codec: the transport's conversions, run on the session's thread.
            options: how results look at first.
            model: name of the model; None for the default of streams, or of stills.
            prior: the mask that the first frame continues from.
            delivery: which frames are answered.
            pixels: width times height that admission charges for before the first frame; a still's are known.
            may_be_finer: whether masks may change their size while it runs: it sends composed pictures alone. A live
                session that names no model then gets a finer one while the box has CPU to spare.
            traceparent: the caller's position in a trace (W3C Trace Context), if it sent one.
            stream: the name that its results are published under.

        Raises:
            BadOption: unknown model or mode, an option is missing, or the prior does not have the model's size.
            TooManySessions, OutOfCpu, Draining: the session was not admitted; nothing has been made.
            SegmentationHangs: opening the model takes too long.
        """
        picked = self.models.pick_still(model) if delivery is Delivery.STILL else self.models.pick_stream(model)
        looks = self.models.looks(picked)
        may_be_finer = may_be_finer and not model and delivery is Delivery.LIVE
        demand = assumed_demand(transport, options.mode, picked.name, delivery, pixels, looks, may_be_finer)
        session = self._admit(demand, lambda: self._make(picked, codec, options, demand, delivery, traceparent, stream))
        self.metrics.session_opened(transport, options.mode)
        session.record_event("session opened", transport=transport, mode=options.mode, model=picked.name)
        try:
            await session.start(prior)
            yield session
        except PortraitError as error:
            session.end(str(error))
            raise
        except asyncio.CancelledError:
            session.end("the client went away")
            raise
        except Exception as error:
            session.end(f"{type(error).__name__}: {error}")
            raise
        finally:
            # Shielded: a cancelled transport must still close the thread and the interpreter.
            await asyncio.shield(self._close(session))

    @contextmanager
    def admit_viewer(self, pixels: int) -> Iterator[StreamLoad]:
        """Charge for a viewer of pictures of `pixels`, 0 if unknown, that has them encoded for itself, for the block.

        Raises:
            OutOfCpu: one more viewer does not fit.
        """
        demand = viewer_demand(pixels, encodes=True)
        with self._charged(StreamLoad(demand, time.monotonic()), [demand]) as load:
            yield load

    @contextmanager
    def admit_sharing_viewer(self, pixels: int, *, encodes: bool) -> Iterator[StreamLoad]:
        """Charge for a viewer of pictures of `pixels`, 0 if unknown, that shares an encoding, for the block.

        With `encodes` it is the first of its stream's output: it is admitted only if encoding fits as well, which is
        charged apart (`charge_encoding`).

        Raises:
            OutOfCpu: one more viewer does not fit.
        """
        demands = [viewer_demand(pixels), *([encoding_demand(pixels)] if encodes else [])]
        with self._charged(StreamLoad(demands[0], time.monotonic()), demands) as load:
            yield load

    def has_room_for_encoding(self, pixels: int) -> bool:
        """Whether `charge_encoding` would admit one now."""
        return self._capacity.refusal(encoding_demand(pixels)) is None

    @contextmanager
    def charge_encoding(self, pixels: int, *, admit: bool) -> Iterator[StreamLoad]:
        """Charge for encoding pictures of `pixels` for viewers, for the length of the block.

        Raises:
            OutOfCpu: `admit` is set, and it does not fit.
        """
        demand = encoding_demand(pixels)
        with self._charged(StreamLoad(demand, time.monotonic()), [demand] if admit else []) as load:
            yield load

    @contextmanager
    def _charged(self, load: StreamLoad, demands: Sequence[Demand]) -> Iterator[StreamLoad]:
        """Charge for `load` for the length of the block, if all of `demands` fit; raises OutOfCpu if they do not."""
        with self.shared.locked():
            refusal = self._capacity.refusal(*demands) if demands else None
            if refusal is None:
                self._capacity.add(load)
        if refusal is not None:
            log_event(logger, logging.WARNING, "viewer refused", reason=str(refusal))
            raise refusal
        try:
            yield load
        finally:
            self._capacity.remove(load)

    @property
    def draining(self) -> bool:
        """Whether new sessions are refused because the service stops."""
        return self._draining

    async def drain(self, seconds: float) -> int:
        """Refuse new sessions, ask the open ones to leave, wait up to `seconds` for that, then end the rest.

        Returns how many had to be ended.
        """
        self._draining = True
        self.shared.tell(draining=True)
        for session in self._open.values():
            session.leave(seconds)
        if await self.wait_closed(seconds):
            return 0
        rest = list(self._open.values())
        for session in rest:
            session.end("the service stops")
        return len(rest)

    async def wait_closed(self, seconds: float) -> bool:
        """Wait up to `seconds` until no session is open; whether none is."""
        with suppress(TimeoutError):
            async with timeout(seconds):
                await self._none_left.wait()
        return not self._open

    def _pool(self, model: Model) -> SegmenterPool:
        """The open segmenters of `model`; those of models from before a reload are closed."""
        if model not in self._pools:
            kept = {self.models.still, *self.models.by_name.values()}
            for gone in self._pools.keys() - kept:
                self._pools.pop(gone).close()
            self._pools[model] = SegmenterPool(model)
        return self._pools[model]

    def _refusal(self, demand: Demand) -> TooManySessions | Draining | None:
        if self._draining:
            return Draining("the service stops; connect elsewhere or later", RETRY_AFTER)
        count = sum(row.sessions for row in self.shared.rows)
        if count >= self.limit:
            return TooManySessions(f"{count} of {self.limit} sessions are open", RETRY_AFTER)
        return self._capacity.refusal(demand)

    def _admit(self, assumed: Demand, make: Callable[[], Session[P, W]]) -> Session[P, W]:
        """What `make` gives; raises the refusal if it is not admitted."""
        with self.shared.locked():
            refusal = self._refusal(assumed)
            if refusal is None:
                return make()
        # Logged outside the lock, for which every worker's event loop waits.
        log_event(logger, logging.WARNING, "session refused", transport=assumed.transport, reason=str(refusal))
        raise refusal

    def _make(
        self,
        model: Model,
        codec: Codec[P, W],
        options: Options,
        assumed: Demand,
        delivery: Delivery,
        traceparent: str | None,
        stream: str | None,
    ) -> Session[P, W]:
        """A session that is registered and charged for."""
        cheaper, tracing = self._capacity.cheaper_model(model.name), self._tracing
        session = Session(
            self.new_id(),
            self._pool(model) if delivery is Delivery.STILL else model,
            options,
            codec,
            assumed=assumed,
            delivery=delivery,
            metrics=self.metrics,
            capacity=self._capacity,
            cheaper=self.models.pick(cheaper) if cheaper else None,
            hang_seconds=self._hang_seconds,
            stream=stream,
            feed=self.feed,
            presence=self._presence,
            on_change=self._on_change,
            finer=self.models.pick_stream(self.models.finer) if self.models.finer and assumed.may_be_finer else None,
            open_span=lambda name: tracing.open(name, traceparent) if tracing else None,
        )
        self._open[session.id] = session
        self._none_left.clear()
        self._capacity.add(session.load)
        self.shared.tell(sessions=len(self._open))
        return session

    async def _close(self, session: Session[Any, Any]) -> None:
        try:
            await session.close()
        finally:
            del self._open[session.id]
            self._capacity.remove(session.load)
            self.shared.tell(sessions=len(self._open))
            if not self._open:
                self._none_left.set()
            self.metrics.session_closed(session.transport, session.options.mode)
            session.record_end()
