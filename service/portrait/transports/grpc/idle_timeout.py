"""A limit of waiting that costs a frame nothing."""

import asyncio
from asyncio import timeout
from types import TracebackType


class Limit:
    """`asyncio.timeout` for waits of which each frame has its own: beginning one is an assignment, not a timer.

    An async context manager, whose block is cut by TimeoutError when one wait in it takes longer than `seconds`.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._loop = seconds, asyncio.get_running_loop()
        self._since: float | None = None
        self._timeout = timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """A wait begins, or begins anew."""
        self._since = self._loop.time()

    def end(self) -> None:
        """Nothing is waited for."""
        self._since = None

    async def __aenter__(self) -> "Limit":
        await self._timeout.__aenter__()
        self._timer = self._loop.call_later(self._seconds, self._look)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._timer is not None
        self._timer.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _look(self) -> None:
        now = self._loop.time()
        left = self._seconds - (now - self._since) if self._since is not None else self._seconds
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._timeout.reschedule(now)
