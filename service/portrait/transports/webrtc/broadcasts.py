"""Streams by name: one publisher, any number of viewers within the limit, each with a slot of its own."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import av

from portrait.errors import NotPublished, StreamTaken, TooManyViewers
from portrait.sessions.newest_slot import NewestSlot
from portrait.workers.shared_state import SharedState

OUTPUTS = ("composite", "mask")

RETRY_AFTER = 2.0
"""Seconds after which a viewer may ask again for a stream that nobody publishes."""


class Stream:
    """What one publisher sends to its viewers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ended = asyncio.Event()
        self._slots: dict[str, set[NewestSlot[av.VideoFrame]]] = {output: set() for output in OUTPUTS}

    @property
    def wanted(self) -> frozenset[str]:
        """The outputs somebody watches."""
        return frozenset(output for output, slots in self._slots.items() if slots)

    def show(self, pictures: dict[str, av.VideoFrame]) -> None:
        """Give every viewer the newest picture of its output."""
        for output, picture in pictures.items():
            for slot in self._slots[output]:
                slot.put(picture)

    @contextmanager
    def watch(self, output: str) -> Iterator[NewestSlot[av.VideoFrame]]:
        """A slot that holds the newest picture, for the length of the block."""
        slot: NewestSlot[av.VideoFrame] = NewestSlot()
        self._slots[output].add(slot)
        try:
            yield slot
        finally:
            self._slots[output].discard(slot)
            slot.close()


class Streams:
    """The streams of the box."""

    def __init__(self, max_viewers: int, board: SharedState) -> None:
        self._max_viewers, self._viewers, self._board = max_viewers, 0, board
        self._streams: dict[str, Stream] = {}

    @contextmanager
    def publish(self, name: str) -> Iterator[Stream]:
        """A stream of that name for the length of the block; its viewers' blocks are told when it ends.

        Raises:
            StreamTaken: somebody publishes it already.
        """
        if name in self._streams or not self._board.stream_names.claim(name):
            raise StreamTaken(f"{name!r} is published already", RETRY_AFTER)
        stream = self._streams[name] = Stream(name)
        try:
            yield stream
        finally:
            del self._streams[name]
            self._board.stream_names.release(name)
            stream.ended.set()

    @contextmanager
    def view(self, name: str) -> Iterator[Stream]:
        """The stream of that name, counted as viewed for the length of the block.

        Raises:
            NotPublished: nobody publishes it now.
            TooManyViewers: the limit is reached.
        """
        if name not in self._streams:
            raise NotPublished(f"nobody publishes {name!r} now", RETRY_AFTER)
        with self._board.locked():
            viewers = sum(row.viewers for row in self._board.rows)
            if viewers >= self._max_viewers:
                raise TooManyViewers(f"{viewers} of {self._max_viewers} viewers are connected", RETRY_AFTER)
            self._viewers += 1
            self._board.tell(viewers=self._viewers)
        try:
            yield self._streams[name]
        finally:
            self._viewers -= 1
            self._board.tell(viewers=self._viewers)
