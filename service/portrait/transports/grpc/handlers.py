"""Handlers of gRPC calls, whichever of the four forms they have."""

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

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
