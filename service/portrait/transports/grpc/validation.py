"""Validation of every request, before it is parsed: ValidationInterceptor.

A message that is small on the wire can be large in memory: an empty member takes two bytes as it arrives and up to
eighty once it is parsed, and the parser holds Python's lock for as long as it runs, so that nothing else in the process
makes progress. Members and packed lists are therefore counted on the bytes themselves (protobuf.dev, Encoding). A count
of lists alone would not do: a member of a oneof that replaces another one leaves the memory of that one taken.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, NamedTuple

import grpc
import grpc.aio
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from portrait.errors import BadMessage, MessageTooLarge, TooManyBytes
from portrait.metrics import Metrics
from portrait.transports.grpc.message_budget import HeldMessages, MessageBudget
from portrait.transports.grpc.status import abort

MOST_MEMBERS = 1000
"""Members of a message and of the messages in it. A packed list is one member."""

MOST_LIST_BYTES = 64 * 1024
"""Bytes of a packed list of numbers. Parsing 60 MB of them would stop the process for 0.2 s."""

MOST_FIELD_BYTES = 8190
"""Bytes of one name or one value in the metadata, as in a head of HTTP."""

MOST_METADATA_BYTES = 16 * 1024
"""Bytes of all metadata of a call, with 32 for each entry (RFC 9113, section 6.5.2)."""

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""Wire types."""

TEXTS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)

Parse = Callable[[bytes], Any]
Handle = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Any]


class Received(NamedTuple):
    """A message that has been parsed."""

    message: Any
    size: int
    """Bytes on the wire."""


class Member(NamedTuple):
    """One member of an encoded message, by the positions of its bytes."""

    number: int
    wire: int
    start: int
    """Where its tag begins."""
    value: int
    """Where its value begins."""
    end: int


def members(view: memoryview) -> Iterator[Member]:
    """The members of an encoded message, without those in its members.

    Bytes that are not a message are read as far as they are one; `end` may lie beyond the bytes.
    """
    at = 0
    while at < len(view):
        start = at
        tag, at = _varint(view, at)
        wire, value = tag & 7, at
        if wire == LENGTH:
            length, value = _varint(view, at)
            at = value + length
        elif wire == VARINT:
            _, at = _varint(view, at)
        else:
            at += {FIXED64: 8, FIXED32: 4}.get(wire, 0)
        yield Member(tag >> 3, wire, start, value, at)


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


def encode_varint(number: int) -> bytes:
    """A number, 0 or more, in seven bits per byte."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def check_members(data: bytes, contract: Descriptor, long_lists: frozenset[str] = frozenset()) -> None:
    """Refuse an encoded message that would be large once it is parsed.

    Lists whose full names are in `long_lists` may have any length.

    Raises:
        BadMessage: more than MOST_MEMBERS members, or a packed list of more than MOST_LIST_BYTES.
    """
    count = 0
    waiting = [(memoryview(data), contract)]
    while waiting:
        view, kind = waiting.pop()
        for member in members(view):
            count += 1
            if count > MOST_MEMBERS:
                raise BadMessage("message", f"got more than {MOST_MEMBERS} members, expected at most as many")
            field = kind.fields_by_number.get(member.number)
            if member.wire != LENGTH or field is None:
                continue
            if field.message_type is not None:
                waiting.append((view[member.value : member.end], field.message_type))
            elif field.type not in TEXTS and field.full_name not in long_lists:
                length = member.end - member.value
                if length > MOST_LIST_BYTES:
                    raise BadMessage(field.name, f"got a list of {length} bytes, expected at most {MOST_LIST_BYTES}")


MAKERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def replaced(handler: Any, handle: Handle, parse: Parse | None = None) -> Any:
    """A method handler of the same form with another behaviour.

    `parse` makes its requests from bytes; with None they stay bytes. A response that is bytes is sent as it is.
    """
    make: Any = MAKERS[handler.request_streaming, handler.response_streaming]
    stock = handler.response_serializer

    def serialize(response: Any) -> bytes:
        return response if isinstance(response, bytes) else stock(response)

    return make(handle, parse, serialize)


class ValidationInterceptor(grpc.aio.ServerInterceptor):
    """Refuses requests that are too large, too many or not of the contract, for every service, gRPC's own too.

    `max_bytes` is the size of the largest legal message, `budget` bounds those in memory. `parsers` replaces the parser
    of messages by their full names; each of them checks the members itself and raises BadMessage.
    """

    def __init__(self, max_bytes: int, budget: MessageBudget, parsers: Mapping[str, Parse], metrics: Metrics) -> None:
        self._max_bytes, self._budget, self._parsers, self._metrics = max_bytes, budget, parsers, metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of the call, which sees valid messages only, or one that refuses it."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        for name, value in handler_call_details.invocation_metadata or ():
            if max(len(name), len(value)) > MOST_FIELD_BYTES:
                return _refusing(handler, _long_field(name, len(value)))
        return replaced(handler, self._validated(handler), self._parser(handler.request_deserializer))

    def _parser(self, deserialize: Parse) -> Parse:
        """A parser that returns errors: one that it raises would not reach the handler."""
        contract: Descriptor = deserialize.__self__.DESCRIPTOR  # type: ignore[attr-defined]  # a message's class method
        parse = self._parsers.get(contract.full_name)

        def checked(data: bytes) -> Received | BadMessage | TooManyBytes:
            try:
                if len(data) > self._max_bytes:
                    raise MessageTooLarge("message", f"got {len(data)} bytes, expected at most {self._max_bytes}")
                self._budget.check(len(data))
                if parse is not None:
                    return Received(parse(data), len(data))
                check_members(data, contract)
                return Received(deserialize(data), len(data))
            except (BadMessage, TooManyBytes) as error:
                return error
            except DecodeError as error:
                return BadMessage("message", f"got {len(data)} bytes that are not a {contract.name}: {error}")

        return checked

    def _validated(self, handler: Any) -> Handle:
        """The behaviour of a handler, as a coroutine function that ends the call at the first bad request."""
        handle: Handle = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        async def validated(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            with HeldMessages(self._budget) as held:
                try:
                    valid = _each_valid(request, held) if handler.request_streaming else _valid(request, held)
                    answer = handle(valid, context)
                    if not hasattr(answer, "__aiter__"):
                        return await answer
                    async for response in answer:
                        await context.write(response)
                except (BadMessage, TooManyBytes) as error:
                    self._metrics.refused("grpc", error)
                    await abort(context, error)

        return validated


def _long_field(name: str, length: int) -> BadMessage:
    return BadMessage(
        "metadata", f"got {name[:80]!r} with a value of {length} bytes, expected names and values of at most "
        f"{MOST_FIELD_BYTES}"
    )  # fmt: skip


def _refusing(handler: Any, error: BadMessage) -> Any:
    async def refuse(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await abort(context, error)

    return replaced(handler, refuse)


def _valid(request: Received | BadMessage | TooManyBytes, held: HeldMessages) -> Any:
    if not isinstance(request, Received):
        raise request
    held.add(request.size)
    return request.message


async def _each_valid(
    requests: AsyncIterator[Received | BadMessage | TooManyBytes], held: HeldMessages
) -> AsyncIterator[Any]:
    async for request in requests:
        yield _valid(request, held)
