"""Bytes that are no message get a status that says so; grpc.aio itself would log a traceback and answer UNKNOWN."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from portrait.errors import BadMessage
from portrait.transports.grpc.status import abort

OURS = ("/portrait.", "/inference.")
"""Services whose handlers are coroutines, either unary or streaming both ways."""


class Strict(grpc.aio.ServerInterceptor):
    """Stands before our services."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of the call, which sees messages only."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(OURS):
            return handler
        parse = _parser(handler.request_deserializer)
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                _strict_stream(handler.stream_stream), parse, handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            _strict_unary(handler.unary_unary), parse, handler.response_serializer
        )


def _parser(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A message, or the error: raised here, it would not reach the handler."""

    def parse(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            return BadMessage("message", f"{len(data)} bytes that are no message of the contract: {error}")

    return parse


def _strict_unary(handle: Any) -> Any:
    async def checked(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        if isinstance(request, BadMessage):
            await abort(context, request)
        return await handle(request, context)

    return checked


def _strict_stream(handle: Any) -> Any:
    async def checked(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        return await handle(_checked(requests), context)

    return checked


async def _checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, BadMessage):
            raise request
        yield request
