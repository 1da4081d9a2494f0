"""Call: one call of SegmentStream, and what the server says at its end."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc.aio

from portrait.client.values import ClientError
from portrait.v1 import segmentation_pb2 as pb

T = TypeVar("T")

OWN_WORDS = "Internal error from Core"
"""What grpc.aio says when a message could not be sent, whatever the server has said (grpc/grpc#36066)."""

STATUS_SECONDS = 1.0
"""How long the server's own status may come after a message that could not be sent any more."""


class Call:
    """A call that ends with the server's own words.

    A server that refuses a stream does not wait for its first message, so that a client's message often meets a call
    that is over. grpc.aio then puts an error of its own over the server's status.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._first: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._note)

    async def write(self, request: pb.SegmentStreamRequest) -> None:
        """Send a message.

        Raises:
            ClientError: the call is over.
        """
        try:
            await self._call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            raise await self._failure() or ClientError("CANCELLED", "the stream is over") from None

    async def read(self) -> pb.SegmentStreamResponse | None:
        """The next message; None after the last. Cancelling ends the call.

        Raises:
            ClientError: the call failed.
        """
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError:
            if (failure := await self._failure()) is not None:
                raise failure from None
            message = grpc.aio.EOF
        if message is grpc.aio.EOF:
            return None
        assert isinstance(message, pb.SegmentStreamResponse)
        return message

    async def done_writing(self) -> None:
        """Say that no message follows. What a call that is over ended with is for `read` to tell."""
        with contextlib.suppress(grpc.aio.InternalError):
            await self._call.done_writing()

    def cancel(self) -> None:
        """End it now. Idempotent."""
        self._call.cancel()

    def _note(self, call: Any) -> None:
        """Keep the status that the call ends with; grpc.aio may put its own over it."""
        self._first = self._first or _at_once(_status(call))

    async def _failure(self) -> ClientError | None:
        """Why the call is over; None when the server has answered everything."""
        status = self._first
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STATUS_SECONDS):
                while status is None or status.details() == OWN_WORDS:  # the other order: the server's comes later
                    await asyncio.sleep(0.01)
                    status = await _status(self._call)
        assert status is not None, "only a call that is done has failed"
        return None if status.code() is grpc.StatusCode.OK else ClientError.from_rpc(status)


async def _status(call: Any) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
    )


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine gives that has nothing to wait for: later, the status may be another."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise AssertionError("the status of a call that is done had to be waited for")
