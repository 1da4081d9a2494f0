"""Call: SegmentStream on the wire, and what it ended with."""

import asyncio
from asyncio import timeout
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import grpc.aio

from portrait.client.types import ClientError
from portrait.v1 import segmentation_pb2 as pb

T = TypeVar("T")

GAVE_UP = "Internal error from Core"
"""What grpc.aio says of a call when a message could not be sent any more (grpc/grpc#36066)."""

LAST_WORD_SECONDS = 1.0
"""How long the server's own words are waited for then: they are under way."""


class Call:
    """One call. Whatever fails in it is told by the server's words, if it had any.

    A message that comes after the server's end puts grpc.aio's words in the place of the server's, before these come or
    after.
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
        """Say that no message follows. What a call that is over ended with is for `read` to tell."""
        with suppress(grpc.aio.InternalError):
            await self._call.done_writing()

    async def read(self) -> pb.SegmentStreamResponse | None:
        """The next message; None after the last. Cancelling ends the call.

        Raises:
            ClientError: the call failed.
        """
        # Not `call.read`: that gives up what has come already when a message could not be sent any more.
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
        with suppress(RuntimeError):  # somebody reads to this moment: the cancelled call tells them
            await aiter(self._call).aclose()

    async def _error(self) -> ClientError | None:
        """Why the call is over; None: all went well."""
        await self._call.code()
        with suppress(TimeoutError):
            async with timeout(LAST_WORD_SECONDS):
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
    """How a call that is over has ended."""
    return grpc.aio.AioRpcError(
        _now(call.code()), grpc.aio.Metadata(), _now(call.trailing_metadata()), _now(call.details())
    )


def _now(answer: Coroutine[Any, Any, T]) -> T:
    """What a coroutine gives that need not wait, at once: a moment later it may give something else."""
    try:
        answer.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    raise AssertionError("it would wait")
