"""OwnThread: the thread of one session, given up when it hangs."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeAlias, TypeVar

from portrait.errors import SegmentationHangs

A = ParamSpec("A")
R = TypeVar("R")

Call: TypeAlias = Callable[[], None]
Settle: TypeAlias = Callable[[Any], None]


class OwnThread:
    """Runs calls, one after the other, on a thread of its own, for as long as none of them hangs.

    No thread can be stopped from outside. One that hangs is given up: nobody waits for it any more, at the end of the
    process neither (an executor's threads would be waited for there), and what it still makes is seen by nobody.
    """

    def __init__(self, name: str, patience: float, given_up: Callable[[SegmentationHangs], None]) -> None:
        self._patience, self._given_up, self._hangs = patience, given_up, False
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def run(self, function: Callable[A, R], *arguments: A.args, **named: A.kwargs) -> R:
        """What `function` gives. Cancelling is safe: what has begun is finished unseen.

        Raises:
            SegmentationHangs: it takes longer than the thread's patience, or an earlier call did.
            Exception: whatever `function` raises.
        """
        if self._hangs:
            raise SegmentationHangs("the thread was given up")
        loop = asyncio.get_running_loop()
        waited: asyncio.Future[R] = loop.create_future()
        self._calls.put(lambda: _fulfil(loop, waited, lambda: function(*arguments, **named)))

        # A bare future and a timer: a concurrent future, wrapped and waited for, takes longer than a picture's packets.
        # Twice half of it: when the whole process stood still, the first half is over at once and proves nothing.
        timer = loop.call_later(self._patience / 2, self._look, waited, 1)
        try:
            return await waited
        finally:
            timer.cancel()

    def _look(self, waited: "asyncio.Future[Any]", halves: int) -> None:
        if waited.done():
            return
        if halves:
            waited.get_loop().call_later(self._patience / 2, self._look, waited, halves - 1)
            return
        self._hangs = True
        error = SegmentationHangs(f"the network gave nothing for {self._patience:g} s")
        self._given_up(error)
        waited.set_exception(error)

    async def close(self, last: Call) -> None:
        """Run `last`, which is idempotent, wait for it and end the thread.

        A thread that was given up does so when it comes back, if ever.
        """
        try:
            if not self._hangs:
                await self.run(last)
        except SegmentationHangs:
            pass
        finally:
            self._calls.put(last)
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _fulfil(loop: asyncio.AbstractEventLoop, waited: "asyncio.Future[Any]", call: Callable[[], Any]) -> None:
    if waited.cancelled():
        return
    try:
        made = call()
    except BaseException as error:
        _tell(loop, waited, waited.set_exception, error)
    else:
        _tell(loop, waited, waited.set_result, made)


def _tell(loop: asyncio.AbstractEventLoop, waited: "asyncio.Future[Any]", settle: Settle, value: Any) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(lambda: None if waited.done() else settle(value))
