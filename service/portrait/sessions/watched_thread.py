"""WatchedThread: the thread of one session, abandoned when the model hangs on it."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeAlias, TypeVar

from portrait.errors import SegmentationHangs

A = ParamSpec("A")
R = TypeVar("R")

Call: TypeAlias = Callable[[], None]

LOWER_PRIORITY = 10
"""By how much a thread of low priority is nicer than the process: beside a busy thread it gets a tenth of a core."""

CHECKS = 4
"""The watchdog checks this many times within the timeout."""


class WatchedThread:
    """Runs calls one after another on a thread of its own; a watchdog abandons the thread when a watched block hangs.

    A call marks what the watchdog covers with `watched`; the rest may take any time. A thread that does not begin its
    call hangs as well. A thread cannot be stopped from outside: an abandoned one is no longer waited for, not even when
    the process ends (an executor's threads would be), and its results are discarded.
    """

    def __init__(self, name: str, hang_seconds: float, *, low_priority: bool = False) -> None:
        """`low_priority` lets threads without it go first where there is not CPU for all."""
        self._low_priority = low_priority
        self._hang_seconds, self._abandoned = hang_seconds, False
        self._waiting: asyncio.Future[Any] | None = None
        """What `run` awaits now."""
        self._block: object | None = None
        """The watched block that the thread is in; a new object for each."""
        self._idle: object | None = None
        """Set while the thread waits for a call; a new object for each wait."""
        self._last_block: object | None = None
        """The block that the last check found, and how many checks in a row have found it before."""
        self._found = 0
        self._timer: asyncio.TimerHandle | None = None
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def run(self, function: Callable[A, R], *arguments: A.args, **named: A.kwargs) -> R:
        """What `function` returns on the thread. One call at a time.

        Cancelling is safe: a call that has begun is finished and its result discarded.

        Raises:
            SegmentationHangs: a watched block took longer than `hang_seconds`, in this call or an earlier one, or the
                thread did not begin the call within that time.
            Exception: whatever `function` raises.
        """
        if self._abandoned:
            raise SegmentationHangs("the session's thread was abandoned because the model hung on it")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[R] = loop.create_future()
        self._waiting = done
        if self._timer is None:
            self._timer = loop.call_later(self._hang_seconds / CHECKS, self._check)
        self._calls.put(partial(_fulfil, done, partial(function, *arguments, **named)))
        try:
            return await done
        finally:
            self._waiting = None
            # An exception refers to this frame; the frame must not refer back to it through the future.
            del done

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Let the watchdog cover the block. Entered on the thread."""
        self._block = object()
        try:
            yield
        finally:
            self._block = None

    async def close(self, last: Call) -> None:
        """Run `last`, which must be idempotent, wait for it and end the thread.

        An abandoned thread does the same whenever it comes back, and is not waited for.

        Raises:
            SegmentationHangs: the thread has been abandoned meanwhile.
        """
        try:
            if not self._abandoned:
                await self.run(last)
        finally:
            self._calls.put(last)
            self._calls.put(None)
            if self._timer is not None:
                self._timer.cancel()

    def _check(self) -> None:
        """Abandon the thread if it has been in the same watched block, or has not begun the call, for `hang_seconds`.

        Checks are counted, not seconds: when the whole process stood still, only one check is late, and proves nothing.
        A timer that runs now and then costs a frame nothing.
        """
        self._timer = None
        waiting, block = self._waiting, self._block or self._idle
        if waiting is None or waiting.done():
            return
        if block is None or block is not self._last_block:
            self._last_block, self._found = block, 0
        else:
            self._found += 1
        if self._found == CHECKS:
            self._abandoned = True
            waiting.set_exception(SegmentationHangs(f"the model gave nothing for {self._hang_seconds:g} s"))
            return
        self._timer = asyncio.get_running_loop().call_later(self._hang_seconds / CHECKS, self._check)

    def _work(self) -> None:
        if self._low_priority:
            with suppress(OSError, AttributeError):  # where threads have no priority of their own, all are alike
                os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + LOWER_PRIORITY)
        while True:
            self._idle = object()
            call = self._calls.get()
            self._idle = None
            if call is None:
                return
            call()
            # Waiting for the next call must not keep this one's picture.
            del call


def _fulfil(done: "asyncio.Future[Any]", call: Callable[[], Any]) -> None:
    """Run the call on the thread. A future of concurrent.futures would need a lock and two more callbacks."""
    if done.cancelled():
        return
    result, error = None, None
    try:
        result = call()
    except BaseException as raised:
        error = raised
    try:
        with suppress(RuntimeError):  # the loop is closed: the result is no longer awaited
            done.get_loop().call_soon_threadsafe(_settle, done, result, error)
    finally:
        # The error refers to this frame: the frame must not refer back to it, nor keep the picture in `call`.
        del done, call, error


def _settle(done: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if done.done():  # cancelled, or the thread was abandoned
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
