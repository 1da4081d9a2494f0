"""MessageBudget: how many bytes of received messages are in memory at once."""

from collections import deque
from types import TracebackType

from portrait.errors import TooManyBytes

RETRY_AFTER = 5.0
"""Seconds a refused client is told to wait."""

KEPT_OF_A_STREAM = 3
"""Messages of a stream that are in memory: one in work, one in the slot, and the one that has just come."""


class MessageBudget:
    """Bounds the bytes of messages that have come and are not done with, over all calls of a worker.

    The number of calls times the largest message would be gigabytes. One more message is refused before it is
    parsed, and its bytes are freed: waiting would keep them. Used on one event loop.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    def check(self, size: int) -> None:
        """Refuse a message that would exceed the bound.

        Raises:
            TooManyBytes: it would.
        """
        if self._taken + size > self._most:
            raise TooManyBytes(
                f"got a message of {size} bytes while messages of {self._taken} bytes are in memory, expected at most "
                f"{self._most} together; try again later",
                RETRY_AFTER,
            )

    def take(self, size: int) -> None:
        """Count a message that `check` has let through."""
        self._taken += size

    def give_back(self, size: int) -> None:
        """Count it no more."""
        self._taken -= size


class HeldMessages:
    """The messages of one call, counted in a budget. A context manager that gives them back at its end."""

    def __init__(self, budget: MessageBudget) -> None:
        self._budget = budget
        self._sizes: deque[int] = deque()

    def __enter__(self) -> "HeldMessages":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._sizes:
            self._budget.give_back(self._sizes.popleft())

    def add(self, size: int) -> None:
        """Count a message that has come; the ones before the last few are done with."""
        self._budget.take(size)
        self._sizes.append(size)
        if len(self._sizes) > KEPT_OF_A_STREAM:
            self._budget.give_back(self._sizes.popleft())
