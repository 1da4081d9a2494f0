"""StreamCall: a SegmentStream call of grpc.aio, and why it has ended."""

import asyncio
from asyncio import timeout
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import grpc.aio

from portrait_client.types import ClientError
from portrait_client.v1 import segmentation_pb2 as pb

T = TypeVar("T")

GAVE_UP = "Internal error from Core"
"""The details that grpc.aio gives a call that ended before a message could be sent (grpc/grpc#36066)."""

STATUS_SECONDS = 1.0
"""How long the server's own status is waited for then: it is on its way."""


class StreamCall:
    """One call. Its errors are the server's own, where the server has sent a status.

    A message written after the server has ended the call makes grpc.aio replace the server's status by its own, before
    or after the server's has arrived.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._ending: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._note)

    async def write(self, request: pb.SegmentStreamRequest) -> None:
        """Send a message.

        Raises:
            ClientError: the call has ended.
        """
        try:
            await self._call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            raise await self._error() or ClientError("CANCELLED", "the stream is over") from None

    async def done_writing(self) -> None:
        """Say that no message follows. Why a call is over already is raised by `read`."""
        with suppress(grpc.aio.InternalError):
            await self._call.done_writing()

    async def read(self) -> pb.SegmentStreamResponse | None:
        """The next message; None after the last. Cancelling ends the call.

        Raises:
            ClientError: the call failed.
        """
        # Not `call.read`, which discards messages that have come already when one could not be sent.
        with suppress(grpc.aio.AioRpcError):
            async for message in self._call:
                assert isinstance(message, pb.SegmentStreamResponse)
                return message
        if error := await self._error():
            raise error
        return None

    async def cancel(self) -> None:
        """End it."""
        self._call.cancel()
        with suppress(RuntimeError):  # a task still reads: the cancelled call ends it
            await aiter(self._call).aclose()

    async def _error(self) -> ClientError | None:
        """Why the call is over; None: without an error."""
        await self._call.code()
        with suppress(TimeoutError):
            async with timeout(STATUS_SECONDS):
                while self._ending is None:
                    await asyncio.sleep(0.01)
                    self._note(self._call)
        ending = self._ending or _status(self._call)
        return None if ending.code() is grpc.StatusCode.OK else ClientError.from_rpc(ending)

    def _note(self, call: Any) -> None:
        status = _status(call)
        if self._ending is None and status.details() != GAVE_UP:
            self._ending = status


def _status(call: Any) -> grpc.aio.AioRpcError:
    """The status of a call that is over."""
    return grpc.aio.AioRpcError(
        _now(call.code()), grpc.aio.Metadata(), _now(call.trailing_metadata()), _now(call.details())
    )


def _now(answer: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that does not have to wait, now: it may be another one later."""
    try:
        answer.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    raise AssertionError("the coroutine would wait")
