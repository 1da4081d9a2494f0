"""A call's place in its caller's trace."""

from typing import Any

import grpc


def traceparent(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """What the call's metadata say (W3C Trace Context); None when they say nothing."""
    value = dict(context.invocation_metadata() or ()).get("traceparent")
    return value if isinstance(value, str) else None
