"""Errors as gRPC statuses with google.rpc details."""

import asyncio
import logging
from asyncio import timeout
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from portrait.errors import (
    BadInput,
    Idle,
    MessageTooLarge,
    NoSuchSession,
    NotConfigured,
    PortraitError,
    Refused,
    SegmentationHangs,
    SessionEnded,
    TooManyBytes,
    TooManyPixels,
    TooManySessions,
    Unauthenticated,
    refusal_of,
)
from portrait.metrics import Metrics

logger = logging.getLogger(__name__)

DOMAIN = "portrait"

STATUS_SECONDS = 5.0
"""How long a call that has ended may wait for its client to take what comes before the status."""

# The first entry that an error is an instance of applies.
CODES: tuple[tuple[type[PortraitError], grpc.StatusCode], ...] = (
    (NotConfigured, grpc.StatusCode.FAILED_PRECONDITION),
    (MessageTooLarge, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (BadInput, grpc.StatusCode.INVALID_ARGUMENT),
    (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (TooManySessions, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (TooManyPixels, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (TooManyBytes, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Refused, grpc.StatusCode.UNAVAILABLE),
    (SegmentationHangs, grpc.StatusCode.UNAVAILABLE),
    (NoSuchSession, grpc.StatusCode.NOT_FOUND),
    (SessionEnded, grpc.StatusCode.ABORTED),
    (Idle, grpc.StatusCode.DEADLINE_EXCEEDED),
    (PortraitError, grpc.StatusCode.INTERNAL),
)


def to_status(error: Exception) -> Any:
    """The google.rpc.Status of an error: code, message, ErrorInfo, and BadRequest or RetryInfo where they apply.

    An error that is not a PortraitError becomes INTERNAL without its text, which may contain details of the machine.
    """
    if isinstance(error, PortraitError):
        code, reason, text = next(code for kind, code in CODES if isinstance(error, kind)), error.reason, str(error)
    else:
        code, reason, text = grpc.StatusCode.INTERNAL, "INTERNAL", "internal error"
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)]
    if isinstance(error, BadInput):
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=str(error))
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, Refused):
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_after * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for detail in details:
        message = AnyMessage()
        message.Pack(detail)
        packed.append(message)
    return status_pb2.Status(code=code.value[0], message=text, details=packed)


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> None:
    """End the call with the error's status, or without where the client does not take it."""
    status = rpc_status.to_status(to_status(error))
    try:
        async with timeout(STATUS_SECONDS):
            await context.abort(status.code, status.details, status.trailing_metadata)
    except (TimeoutError, grpc.aio.InternalError):
        # A result that is not taken is in the way: gRPC waits behind it for ever, or refuses a second message. A call
        # whose handler is cancelled is reset.
        raise asyncio.CancelledError from None


@asynccontextmanager
async def aborting(context: grpc.aio.ServicerContext[Any, Any], metrics: Metrics) -> AsyncIterator[None]:
    """End the call with a status that has details when the block raises; count it if it is a refusal."""
    try:
        yield
    except PortraitError as error:
        metrics.refused("grpc", error)
        await abort(context, error)
    except grpc.aio.AbortError:
        raise
    except Exception as error:
        if (refusal := refusal_of(error)) is not None:
            metrics.refused("grpc", refusal)
            await abort(context, refusal)
        if not context.done():  # a client that has gone is no error
            logger.exception("a call failed")
        await abort(context, error)
