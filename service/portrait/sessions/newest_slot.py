"""NewestSlot: a slot for one item between arrival and processing. The newest item wins, and every loss is counted."""

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """The slot is closed and empty."""


class NewestSlot(Generic[T]):
    """Holds the newest item until it is taken. Used on one event loop.

    It is the only buffer between the wire and the session: a queue would turn each slow moment into lasting delay.
    """

    def __init__(self) -> None:
        self.dropped = 0
        """Items that were replaced before they were taken."""
        self._item: list[T] = []
        self._ready = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._closed = False

    def put(self, item: T) -> bool:
        """Store an item in place of one that has not been taken. Returns False if it replaced one. Never blocks.

        Raises:
            Closed: after `close`.
        """
        if self._closed:
            raise Closed
        replaces = bool(self._item)
        self.dropped += replaces
        self._item = [item]
        self._empty.clear()
        self._ready.set()
        return not replaces

    async def wait_empty(self) -> None:
        """Wait until the slot is empty: a sender that must lose nothing is slowed down by it."""
        await self._empty.wait()

    async def get(self) -> T:
        """Wait for an item and take it. Cancelling loses no item.

        Raises:
            Closed: after `close`, once the last item has been taken.
        """
        while not self._item:
            if self._closed:
                raise Closed
            self._ready.clear()
            await self._ready.wait()
        self._empty.set()
        return self._item.pop()

    def close(self) -> None:
        """Accept no more items, and raise Closed in `get` once the slot is empty. Idempotent."""
        self._closed = True
        self._ready.set()
