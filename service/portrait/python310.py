"""What the package uses of Python 3.11, for 3.10 as well. It goes when 3.10 goes.

A `timeout` raises the built-in TimeoutError, which asyncio's own is in 3.11 only.
"""

import sys

__all__ = ["Runner", "Unpack", "timeout", "tomllib"]

if sys.version_info >= (3, 11):
    from asyncio import Runner, timeout
    from typing import Unpack

    import tomllib
else:
    import asyncio
    from types import TracebackType

    import tomli as tomllib
    from backports.asyncio.runner import Runner
    from typing_extensions import Unpack

    class Timeout:
        """As `asyncio.Timeout`, but a cancellation that comes in the same turn of the loop is taken for the timeout.

        Not of the package async-timeout: there no other task, and no timer, can reschedule one.
        """

        def __init__(self, when: float | None) -> None:
            self._when, self._expired = when, False
            self._task: asyncio.Task[object] | None = None
            self._timer: asyncio.TimerHandle | None = None

        async def __aenter__(self) -> "Timeout":
            self._task = asyncio.current_task()
            self.reschedule(self._when)
            return self

        async def __aexit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None:
            self.reschedule(None)
            if self._expired and isinstance(error, asyncio.CancelledError):
                raise TimeoutError from error

        def reschedule(self, when: float | None) -> None:
            """Let it come at another time of the loop's clock, or not at all."""
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None if when is None else asyncio.get_running_loop().call_at(when, self._expire)

        def _expire(self) -> None:
            assert self._task is not None
            self._expired = self._task.cancel()

    def timeout(delay: float | None) -> Timeout:
        """As `asyncio.timeout`: the block is cut by TimeoutError after so many seconds."""
        return Timeout(None if delay is None else asyncio.get_running_loop().time() + delay)
