"""NewestSlot: the slot of one between arrival and work. Newest wins, every loss is counted."""

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """The slot was closed and is empty."""


class NewestSlot(Generic[T]):
    """Holds the newest item until somebody takes it; used on one event loop.

    This is the only buffer between the wire and the work. A queue here would turn every slow moment into lasting delay.
    """

    def __init__(self) -> None:
        self.dropped = 0
        """Items replaced before anybody took them."""
        self._item: list[T] = []
        self._ready = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._closed = False

    def put(self, item: T) -> bool:
        """Place an item, replacing one not yet taken. Returns False when another was lost to it. Never blocks.

        Raises:
            Closed: after `close`.
        """
        if self._closed:
            raise Closed
        lost = bool(self._item)
        self.dropped += lost
        self._item = [item]
        self._empty.clear()
        self._ready.set()
        return not lost

    async def wait_empty(self) -> None:
        """Wait until the slot is free, for who may lose nothing and slows its sender down instead."""
        await self._empty.wait()

    async def get(self) -> T:
        """Wait for an item and take it. Cancelling is safe: nothing is lost.

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
        """No more items will come; whoever waits in `get` is told. Idempotent."""
        self._closed = True
        self._ready.set()
