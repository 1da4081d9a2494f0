"""How many members a message has, counted in its bytes: each takes two of these, and up to eighty once it is parsed.

Messages without lists too: one of several (oneof) that comes after another leaves that one's memory taken.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from portrait.errors import BadMessage, MessageTooLarge
from portrait.transports.grpc.status import abort

MOST_MEMBERS = 1000
"""Of a message and those in it. A packed list counts once: it grows eightfold at most."""

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""Wire types (protobuf.dev, Encoding)."""


def count_members(data: bytes, contract: Descriptor) -> int:
    """The members of a message and of those in it; no further than to MOST_MEMBERS + 1.

    Bytes that are no message are counted as far as they are one.
    """
    count = 0
    waiting = [(memoryview(data), contract)]
    while waiting:
        view, kind = waiting.pop()
        at = 0
        while at < len(view):
            count += 1
            if count > MOST_MEMBERS:
                return count
            tag, at = _varint(view, at)
            wire = tag & 7
            if wire == LENGTH:
                length, at = _varint(view, at)
                field = kind.fields_by_number.get(tag >> 3)
                if field is not None and field.message_type is not None:
                    waiting.append((view[at : at + length], field.message_type))
                at += length
            elif wire == VARINT:
                _, at = _varint(view, at)
            else:
                at += {FIXED64: 8, FIXED32: 4}.get(wire, 0)
    return count


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits per byte, and where it ends; one that is cut short ends with the bytes."""
    value = shift = 0
    while at < len(view) and shift < 70:
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            break
    return value, at


MAKERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def behaviour(handler: Any) -> Callable[[Any, Any], Any]:
    """What a handler does: a coroutine function, or one that gives an asynchronous iterator of responses."""
    found: Callable[[Any, Any], Any] = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    return found


def replaced(handler: Any, does: Callable[[Any, Any], Any], parse: Callable[[bytes], Any] | None = None) -> Any:
    """A handler of the same form that does something else; `parse` makes its requests, None: the bytes are them."""
    make: Any = MAKERS[handler.request_streaming, handler.response_streaming]
    return make(does, parse, handler.response_serializer)


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
