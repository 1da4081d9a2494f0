"""IdleTimeout: a limit on waits that sets no timer for each of them."""

import asyncio
from asyncio import timeout
from types import TracebackType


class IdleTimeout:
    """Cuts its block by TimeoutError when one wait in it takes longer than `seconds`.

    An async context manager, like `asyncio.timeout`, for loops that wait once for each frame: to begin a wait is an
    assignment, where `asyncio.timeout` would set and cancel a timer.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._loop = seconds, asyncio.get_running_loop()
        self._since: float | None = None
        self._timeout = timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Begin a wait, or begin it anew."""
        self._since = self._loop.time()

    def end(self) -> None:
        """End the wait: nothing is timed."""
        self._since = None

    async def __aenter__(self) -> "IdleTimeout":
        await self._timeout.__aenter__()
        self._timer = self._loop.call_later(self._seconds, self._check)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._timer is not None
        self._timer.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _check(self) -> None:
        now = self._loop.time()
        left = self._seconds - (now - self._since) if self._since is not None else self._seconds
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
        else:
            self._timeout.reschedule(now)
