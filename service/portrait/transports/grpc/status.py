"""Errors as gRPC statuses with google.rpc details."""

from typing import Any

import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from portrait.errors import (
    BadInput,
    Draining,
    NoSuchSession,
    NotConfigured,
    PortraitError,
    TooManySessions,
)

DOMAIN = "portrait"

# The first entry an error is an instance of decides.
CODES: tuple[tuple[type[PortraitError], grpc.StatusCode], ...] = (
    (NotConfigured, grpc.StatusCode.FAILED_PRECONDITION),
    (BadInput, grpc.StatusCode.INVALID_ARGUMENT),
    (TooManySessions, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Draining, grpc.StatusCode.UNAVAILABLE),
    (NoSuchSession, grpc.StatusCode.NOT_FOUND),
    (PortraitError, grpc.StatusCode.INTERNAL),
)


def to_status(error: Exception) -> Any:
    """A google.rpc.Status of an error: code, sentence, ErrorInfo, and BadRequest or RetryInfo where they apply.

    An error outside the tree becomes INTERNAL without its text, which might tell a stranger about the machine.
    """
    if not isinstance(error, PortraitError):
        return status_pb2.Status(code=grpc.StatusCode.INTERNAL.value[0], message="internal error")
    code = next(code for kind, code in CODES if isinstance(error, kind))
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if isinstance(error, BadInput):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=str(error))
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, TooManySessions | Draining):
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_after * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        message = AnyMessage()
        message.Pack(detail)
        packed.append(message)
    return status_pb2.Status(code=code.value[0], message=str(error), details=packed)


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> None:
    """End the call with the error's status."""
    status = rpc_status.to_status(to_status(error))
    await context.abort(status.code, status.details, status.trailing_metadata)
