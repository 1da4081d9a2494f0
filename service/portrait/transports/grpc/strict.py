"""Bytes that are no message, or too much of one, get a status that says so, with details.

grpc.aio itself would log a traceback and answer UNKNOWN; gRPC's core would refuse what is too large without details.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from portrait.errors import BadMessage, MessageTooLarge
from portrait.transports.grpc.handlers import behaviour, replaced
from portrait.transports.grpc.members import MOST_MEMBERS, count_members
from portrait.transports.grpc.status import abort


class Strict(grpc.aio.ServerInterceptor):
    """Stands before every service, ours and those that come with gRPC. `max_bytes` is the largest legal message."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of the call, which sees messages only."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        return replaced(handler, _strict(handler), _parser(handler.request_deserializer, self._max_bytes))


def _parser(deserialize: Callable[[bytes], Any], max_bytes: int) -> Callable[[bytes], Any]:
    """A message, or the error: raised here, it would not reach the handler."""
    contract = deserialize.__self__.DESCRIPTOR  # type: ignore[attr-defined]  # the class method of a message

    def parse(data: bytes) -> Any:
        if len(data) > max_bytes:
            return MessageTooLarge("message", f"{len(data)} bytes came; expected at most {max_bytes}")
        if count_members(data, contract) > MOST_MEMBERS:
            return BadMessage("message", f"more than {MOST_MEMBERS} members came; expected as many or fewer")
        try:
            return deserialize(data)
        except DecodeError as error:
            return BadMessage("message", f"{len(data)} bytes that are no message of the contract: {error}")

    return parse


def _strict(handler: Any) -> Callable[[Any, Any], Any]:
    handle = behaviour(handler)

    async def checked(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            answer = handle(_checked(request) if handler.request_streaming else _check(request), context)
            if not hasattr(answer, "__aiter__"):
                return await answer
            async for each in answer:
                await context.write(each)
        except BadMessage as error:
            await abort(context, error)

    return checked


def _check(request: Any) -> Any:
    if isinstance(request, BadMessage):
        raise request
    return request


async def _checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _check(request)
