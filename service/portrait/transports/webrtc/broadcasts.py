"""Broadcasts: streams by name, each with one publisher and any number of viewers up to the limit."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from portrait.errors import NotPublished, StreamTaken, TooManyViewers
from portrait.image.frame import Frame
from portrait.sessions.newest_slot import NewestSlot
from portrait.workers.shared_state import SharedState

OUTPUTS = ("composite", "mask")

RETRY_AFTER = 2.0
"""Seconds after which a viewer may ask again for a stream that is not published."""


class Broadcast:
    """What one publisher sends to its viewers, each of whom has a slot."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ended = asyncio.Event()
        self.pixels = dict.fromkeys(OUTPUTS, 0)
        """Size of each output's last frame; 0 before the first."""
        self._slots: dict[str, set[NewestSlot[Frame]]] = {output: set() for output in OUTPUTS}

    @property
    def wanted(self) -> frozenset[str]:
        """The outputs that have viewers."""
        return frozenset(output for output, slots in self._slots.items() if slots)

    def show(self, outputs: dict[str, Frame]) -> None:
        """Give every viewer the newest frame of its output."""
        for output, frame in outputs.items():
            self.pixels[output] = frame.width * frame.height
            for slot in self._slots[output]:
                slot.put(frame)

    @contextmanager
    def watch(self, output: str) -> Iterator[NewestSlot[Frame]]:
        """A slot that holds the newest frame, for the length of the block."""
        slot: NewestSlot[Frame] = NewestSlot()
        self._slots[output].add(slot)
        try:
            yield slot
        finally:
            self._slots[output].discard(slot)
            slot.close()


class Broadcasts:
    """The streams of this worker; their names and the number of viewers are the box's."""

    def __init__(self, max_viewers: int, shared: SharedState) -> None:
        self._max_viewers, self._viewers, self._shared = max_viewers, 0, shared
        self._broadcasts: dict[str, Broadcast] = {}

    @contextmanager
    def publish(self, name: str) -> Iterator[Broadcast]:
        """A broadcast of that name for the length of the block; its viewers are told when it ends.

        Raises:
            StreamTaken: the name is published already.
        """
        if name in self._broadcasts or not self._shared.stream_names.claim(name):
            raise StreamTaken(f"{name!r} is published already", RETRY_AFTER)
        broadcast = self._broadcasts[name] = Broadcast(name)
        try:
            yield broadcast
        finally:
            del self._broadcasts[name]
            self._shared.stream_names.release(name)
            broadcast.ended.set()

    @contextmanager
    def view(self, name: str) -> Iterator[Broadcast]:
        """The broadcast of that name, with one more viewer for the length of the block.

        Raises:
            NotPublished: the name is not published now.
            TooManyViewers: the limit is reached.
        """
        if name not in self._broadcasts:
            raise NotPublished(f"{name!r} is not published now", RETRY_AFTER)
        with self._shared.locked():
            viewers = sum(row.viewers for row in self._shared.rows)
            if viewers >= self._max_viewers:
                raise TooManyViewers(f"{viewers} of {self._max_viewers} viewers are connected", RETRY_AFTER)
            self._viewers += 1
            self._shared.tell(viewers=self._viewers)
        try:
            yield self._broadcasts[name]
        finally:
            self._viewers -= 1
            self._shared.tell(viewers=self._viewers)
