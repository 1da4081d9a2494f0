"""Sessions: every open session, their limit and their end."""

import asyncio
import logging
from asyncio import timeout
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol, TypeVar

from portrait.admission.capacity import RETRY_AFTER, Capacity
from portrait.admission.cost_model import Demand
from portrait.admission.quality import Delivery
from portrait.core.compositors import Options
from portrait.core.pipeline import Codec
from portrait.core.segmenters import Model, Models
from portrait.errors import Draining, NoSuchSession, PortraitError, TooManySessions
from portrait.image.mask import Mask
from portrait.logs import log_event
from portrait.sessions.counters import first_demand
from portrait.sessions.session import HANG_SECONDS, Counting, Session, Span, Terms
from portrait.tracing import Untraced
from portrait.workers.ids import new_id
from portrait.workers.shared_state import SharedState

logger = logging.getLogger(__name__)

P = TypeVar("P")
W = TypeVar("W")


class Admitting(Counting, Protocol):
    """What admission asks of metrics, besides what each session does."""

    def session_opened(self, transport: str) -> None:
        """Count a session in."""

    def session_closed(self, transport: str) -> None:
        """Count a session out."""

    def session_refused(self, reason: str) -> None:
        """Count a session that was not admitted."""


class Tracing(Protocol):
    """What opens the span of a session."""

    def open(self, session_id: str, parent: str | None) -> Span:
        """A span, below the caller's own where `parent` is a W3C `traceparent`."""


CLOSE_SECONDS = 10.0
"""How long the end of the service waits for turns under way. Only a network that hangs takes longer."""


class Sessions:
    """Every open session: the limit, the list, the drain.

    An async context manager: at its end every session is ended and has given its thread back.
    """

    def __init__(
        self,
        models: Models,
        limit: int,
        counting: Admitting,
        board: SharedState | None = None,
        capacity: Capacity | None = None,
        tracing: Tracing | None = None,
        hang_seconds: float = HANG_SECONDS,
    ) -> None:
        self.models, self.limit = models, limit
        self._hang_seconds = hang_seconds
        self.board, self._capacity = board or SharedState(), capacity
        if capacity is not None:
            capacity.list_open = lambda: self._open.values()
        self._counting, self._tracing = counting, tracing or Untraced()
        self._open: dict[str, Session[Any, Any]] = {}
        self._draining = False
        self._none_left = asyncio.Event()
        self._none_left.set()

    async def __aenter__(self) -> "Sessions":
        """Accept sessions."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wait for the sessions that are closing; a transport's cancelled task does not wait for its own."""
        await self.drain(0.0)
        if not await self.wait_closed(CLOSE_SECONDS):
            logger.error("%d sessions hang and are left behind", len(self._open))

    async def wait_closed(self, seconds: float) -> bool:
        """Wait until none is open, or so long; whether none is."""
        with suppress(TimeoutError):
            async with timeout(seconds):
                await self._none_left.wait()
        return not self._open

    def __len__(self) -> int:
        return len(self._open)

    @property
    def draining(self) -> bool:
        """Whether new sessions are refused because the service stops."""
        return self._draining

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
        traceparent: str | None = None,
    ) -> AsyncIterator[Session[P, W]]:
        """A session of its own thread and interpreter, for the length of the block; it goes on from `prior`.

        `traceparent` is the caller's place in a trace (W3C Trace Context), if it told one.

        Raises:
            BadOption: unknown model or mode, an option missing, or a prior of another size than the model's.
            TooManySessions, OutOfCpu, Draining: nothing was made yet when these are raised.
            SegmentationHangs: the network file does not come up.
        """
        picked = self.models.pick(model)
        with self.board.locked():
            refusal = self._refusal(first_demand(transport, options.mode, picked.name, delivery))
            if refusal is None:
                session = Session(
                    new_id(self.board.index),
                    transport,
                    picked,
                    options,
                    codec,
                    self._counting,
                    self._terms(delivery, picked),
                    lambda name: self._tracing.open(name, traceparent),
                )
                self._open[session.id] = session
                self.board.tell(sessions=len(self._open))
        if refusal is not None:  # logged outside the lock, for which every worker's event loop waits
            self._counting.session_refused(refusal.reason)
            log_event(logger, logging.WARNING, "session refused", transport=transport, reason=str(refusal))
            raise refusal
        self._none_left.clear()
        self._counting.session_opened(transport)
        session.tell("session opened", transport=transport, mode=options.mode, model=picked.name)
        try:
            await session.start(prior)
            yield session
        except PortraitError as error:
            session.end(str(error))
            raise
        except asyncio.CancelledError:
            session.end("the caller went away")
            raise
        except Exception as error:
            session.end(f"{type(error).__name__}: {error}")
            raise
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

    def list_modes(self) -> list[tuple[str, str]]:
        """(transport, mode) of every open session."""
        return [(session.transport, session.options.mode) for session in self._open.values()]

    async def drain(self, seconds: float) -> int:
        """Refuse new sessions, ask the open ones to leave, wait up to `seconds` for that, then end the rest.

        Returns how many had to be ended.
        """
        self._draining = True
        self.board.tell(draining=True)
        for session in self._open.values():
            session.leave(seconds)
        if await self.wait_closed(seconds):
            return 0
        rest = list(self._open.values())
        for session in rest:
            session.end("the service stops")
        return len(rest)

    def _terms(self, delivery: Delivery, model: Model) -> Terms:
        if self._capacity is None:
            return Terms(delivery, hang_seconds=self._hang_seconds)
        smaller = self._capacity.smaller(model.name)
        return Terms(
            delivery, self._capacity.in_force, self.models.pick(smaller) if smaller else None, self._hang_seconds
        )

    def _refusal(self, demand: Demand) -> TooManySessions | Draining | None:
        if self._draining:
            return Draining("the service stops; connect elsewhere or later", RETRY_AFTER)
        count = sum(row.sessions for row in self.board.rows)
        if count >= self.limit:
            return TooManySessions(f"{count} of {self.limit} sessions are open", RETRY_AFTER)
        return self._capacity.refusal(demand) if self._capacity is not None else None

    async def _close(self, session: Session[Any, Any]) -> None:
        try:
            await session.close()
        finally:
            del self._open[session.id]
            self.board.tell(sessions=len(self._open))
            if not self._open:
                self._none_left.set()
            self._counting.session_closed(session.transport)
            session.tell_end()
