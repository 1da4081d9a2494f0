"""PresenceFeed: tells listeners that a person has come into a stream's picture, or left it.

A listener has a place for each stream: an event that is not taken in time is replaced by the stream's next one, so that
a listener who is slow, or gone, holds a bounded number of events and learns the newest state at last.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from portrait.core.presence import Box, Presence
from portrait.errors import TooManyListeners
from portrait.metrics import Metrics

MOST_WAITING = 256
"""Streams of which an event waits for one listener, at most; further ones replace the oldest."""

RETRY_AFTER = 5.0
"""Seconds after which a listener that was refused may ask again."""

DIGITS = 4
"""Of fractions, in documents."""


@dataclass(frozen=True, slots=True)
class PresenceEvent:
    """A person has come into the picture of a stream, or left it; or the stream has begun or ended."""

    session: str
    """The short id of the session, as it is in the logs."""
    stream: str | None
    """The name it is published under, if it has one."""
    transport: str
    presence: Presence
    at: float
    """Seconds of the epoch."""
    ended: bool = False
    """Whether the stream has ended; nobody is present then."""

    def document(self) -> dict[str, Any]:
        """The event as JSON shows it."""
        return {
            "stream": self.stream,
            "session": self.session,
            "transport": self.transport,
            **presence_document(self.presence),
            "ended": self.ended,
            "at": datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> "PresenceEvent":
        """The event of a document that another worker has made."""
        box = document["box"]
        presence = Presence(document["present"], document["share"], None if box is None else Box(**box))
        at = datetime.fromisoformat(document["at"]).timestamp()
        name, stream, transport = document["session"], document["stream"], document["transport"]
        return cls(name, stream, transport, presence, at, document["ended"])

    def as_ended(self, at: float) -> "PresenceEvent":
        """The end of the stream, after this event."""
        return replace(self, presence=Presence(False, 0.0, None), at=at, ended=True)


def presence_document(presence: Presence) -> dict[str, Any]:
    """Presence as JSON shows it; fractions are rounded."""
    box = None
    if presence.box is not None:
        box = {name: round(value, DIGITS) for name, value in asdict(presence.box).items()}
    return {"present": presence.present, "share": round(presence.share, DIGITS), "box": box}


class Listener:
    """The events that wait for one listener, in order; of each session the newest."""

    def __init__(self, sink: str, stream: str | None, metrics: Metrics, *, limited: bool = False) -> None:
        self.stream, self.limited = stream, limited
        """The only stream that is listened to, None: all; and whether it counts towards the limit."""
        self._sink, self._metrics = sink, metrics
        self._waiting: dict[str, PresenceEvent] = {}
        self._some = asyncio.Event()
        self.closed = False

    def close(self) -> None:
        """Let `get` give None from now on. Idempotent."""
        self.closed = True
        self._some.set()

    def put(self, event: PresenceEvent) -> None:
        """Let an event wait, if it is of a stream that is listened to."""
        if self.stream is not None and event.stream != self.stream:
            return
        if self._waiting.pop(event.session, None) is not None:
            self._metrics.event(self._sink, "dropped")
        elif len(self._waiting) >= MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
            self._metrics.event(self._sink, "dropped")
        self._waiting[event.session] = event
        self._some.set()

    @property
    def empty(self) -> bool:
        """Whether no event waits."""
        return not self._waiting

    async def get(self) -> PresenceEvent | None:
        """Wait for the next event and take it; None once this is closed. Cancelling is safe."""
        await self._some.wait()
        if self.closed:
            return None
        event = self._waiting.pop(next(iter(self._waiting)))
        if not self._waiting:
            self._some.clear()
        return event

    def count(self, result: str) -> None:
        """Count an event that was taken as "sent" or "failed"."""
        self._metrics.event(self._sink, result)


class PresenceFeed:
    """The presence of this worker's streams, and who listens. Used on the event loop."""

    def __init__(self, metrics: Metrics, max_listeners: int = 32) -> None:
        self._metrics, self._max_listeners = metrics, max_listeners
        self._listeners: set[Listener] = set()
        self._streams: dict[str, PresenceEvent] = {}
        """The newest event of each open session."""

    def tell(self, event: PresenceEvent) -> None:
        """Tell every listener; those who come later learn the newest event of each stream that has not ended."""
        if event.ended:
            self._streams.pop(event.session, None)
        else:
            self._streams[event.session] = event
        for listener in self._listeners:
            listener.put(event)

    def wanted(self, stream: str) -> bool:
        """Whether presence in a stream of this name is listened to: it must be segmented, though nobody watches it."""
        return any(listener.stream in (None, stream) for listener in self._listeners)

    @contextmanager
    def listen(self, sink: str, stream: str | None = None, *, limited: bool = False) -> Iterator[Listener]:
        """Listen for the length of the block, to one stream or to all; begins with the state of each.

        Args:
            sink: where the events go, as metrics call it.
            stream: the only stream that is listened to.
            limited: whether the listener counts towards the limit, as clients do.

        Raises:
            TooManyListeners: the limit is reached.
        """
        count = sum(each.limited for each in self._listeners)
        if limited and count >= self._max_listeners:
            raise TooManyListeners(f"{count} of {self._max_listeners} listeners are connected", RETRY_AFTER)
        listener = Listener(sink, stream, self._metrics, limited=limited)
        for event in self._streams.values():
            listener.put(event)
        self._listeners.add(listener)
        self._metrics.listeners.inc()
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            self._metrics.listeners.dec()
