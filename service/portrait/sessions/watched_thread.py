"""WatchedThread: the thread of one session, given up when it hangs."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeAlias, TypeVar

from portrait.errors import SegmentationHangs

A = ParamSpec("A")
R = TypeVar("R")

Call: TypeAlias = Callable[[], None]


class WatchedThread:
    """Runs calls, one after the other, on a thread of its own, for as long as none of them hangs.

    No thread can be stopped from outside. One that hangs is given up: nobody waits for it any more, at the end of the
    process neither (an executor's threads would be waited for there), and what it still makes is seen by nobody.
    """

    def __init__(self, name: str, patience: float, given_up: Callable[[SegmentationHangs], None]) -> None:
        self._patience, self._given_up, self._hangs = patience, given_up, False
        self._waited: asyncio.Future[Any] | None = None
        """What somebody waits for, since `_since` by the loop's clock."""
        self._since = 0.0
        self._half_over: asyncio.Future[Any] | None = None
        """What has been waited for half the patience already."""
        self._timer: asyncio.TimerHandle | None = None
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def run(self, function: Callable[A, R], *arguments: A.args, **named: A.kwargs) -> R:
        """What `function` gives. Cancelling is safe: what has begun is finished unseen. One at a time.

        Raises:
            SegmentationHangs: it takes longer than the thread's patience, or an earlier call did.
            Exception: whatever `function` raises.
        """
        if self._hangs:
            raise SegmentationHangs("the thread was given up")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[R] = loop.create_future()
        self._waited, self._since = done, loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._patience / 2, self._look)
        self._calls.put(partial(_fulfil, done, partial(function, *arguments, **named)))
        try:
            return await done
        finally:
            self._waited = None

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
            if self._timer is not None:
                self._timer.cancel()

    def _look(self) -> None:
        """Give up what takes too long. A timer that looks now and then costs a frame nothing.

        Twice half of the patience: when the whole process stood still, the first half is over at once and proves
        nothing.
        """
        waited, half, loop = self._waited, self._patience / 2, asyncio.get_running_loop()
        self._timer = None
        if waited is None or waited.done():
            return
        if waited is self._half_over:
            self._hangs = True
            error = SegmentationHangs(f"the network gave nothing for {self._patience:g} s")
            self._given_up(error)
            waited.set_exception(error)
            return
        waiting = loop.time() - self._since
        if waiting >= half:
            self._half_over, waiting = waited, 0.0
        self._timer = loop.call_later(half - waiting, self._look)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _fulfil(done: "asyncio.Future[Any]", call: Callable[[], Any]) -> None:
    """On the thread. A future of concurrent.futures would do the same with a lock and two callbacks more."""
    if done.cancelled():
        return
    result, error = None, None
    try:
        result = call()
    except BaseException as raised:
        error = raised
    with suppress(RuntimeError):  # the loop has been closed: nobody waits
        done.get_loop().call_soon_threadsafe(_settle, done, result, error)


def _settle(done: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if done.done():  # cancelled, or given up
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
