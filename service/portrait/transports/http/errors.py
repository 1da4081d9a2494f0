"""Errors as application/problem+json (RFC 9457)."""

import logging
import re

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from portrait.errors import (
    BadInput,
    BadOption,
    BadPicture,
    Draining,
    Idle,
    NoMediaPort,
    NoSuchSession,
    NotPublished,
    PodLost,
    PortraitError,
    Refused,
    SegmentationHangs,
    SessionEnded,
    StreamTaken,
    TooManyPixels,
    TooManyRequests,
    TooManySessions,
    TooManyViewers,
    Unauthenticated,
    UnsupportedOffer,
    WorkerLost,
    refusal_of,
)
from portrait.metrics import Metrics

SCHEMES = ("Bearer", "Basic")

logger = logging.getLogger(__name__)

# The first entry that an error is an instance of applies.
STATUSES: tuple[tuple[type[PortraitError], int], ...] = (
    (BadPicture, 422),
    (UnsupportedOffer, 422),
    (BadInput, 400),
    (Unauthenticated, 401),
    (NoSuchSession, 404),
    (SessionEnded, 410),
    (Idle, 408),
    (TooManySessions, 503),
    (TooManyPixels, 503),
    (WorkerLost, 503),
    (PodLost, 503),
    (NoMediaPort, 503),
    (TooManyViewers, 503),
    (NotPublished, 409),
    (StreamTaken, 409),
    (TooManyRequests, 429),
    (Draining, 503),
    (Refused, 503),
    (SegmentationHangs, 503),
    (PortraitError, 500),
)


WEBRTC_PATHS = ("/webrtc", "/whip/", "/whep/", "/v1/viewers/")
"""Paths whose refusals are counted as those of WebRTC."""


@web.middleware
async def refuse_repeated_parameters(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A middleware that refuses a query with one parameter twice: which of the values was meant would be a guess."""
    for name in request.query:
        if len(request.query.getall(name)) > 1:
            raise BadOption(name[:80], "got the parameter twice, expected it once")
    return await handler(request)


def errors_as_problems(metrics: Metrics) -> Middleware:
    """A middleware that answers every error in one form, and counts the refusals."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except PortraitError as error:
            metrics.refused(_transport(request), error)
            return _problem_of(error)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return problem_of(error)
        except web.RequestPayloadError as error:
            cause = error.__cause__ or error
            return problem(400, "BAD_REQUEST", f"got a body that cannot be read: {str(cause)[:200].strip()}")
        except ConnectionResetError:
            raise  # the client has disconnected: aiohttp closes the connection
        except Exception as error:
            if (refusal := refusal_of(error)) is not None:
                metrics.refused(_transport(request), refusal)
                return _problem_of(refusal)
            logger.exception("%s %r failed", request.method, request.path)
            return problem(500, "INTERNAL", "internal error")

    return middleware


def _transport(request: web.Request) -> str:
    """The transport as whose a refusal counts."""
    return "webrtc" if request.path.startswith(WEBRTC_PATHS) else "http"


def problem_of(error: web.HTTPException) -> web.Response:
    """The problem for an error of aiohttp's, with those of its headers that a client may act on."""
    response = problem(error.status, _reason(error), error.text or error.reason)
    for name in ("Allow", "Accept-Patch", "Accept-Post", "Retry-After"):
        if name in error.headers:
            response.headers[name] = error.headers[name]
    return response


def _problem_of(error: PortraitError) -> web.Response:
    status = next(status for kind, status in STATUSES if isinstance(error, kind))
    response = problem(status, error.reason, str(error))
    if isinstance(error, Refused):
        response.headers["Retry-After"] = f"{max(1.0, error.retry_after):.0f}"
    if isinstance(error, Unauthenticated):
        # Basic as well: it makes a browser ask its user, who enters the token as the password.
        response.headers.extend([("WWW-Authenticate", f'{scheme} realm="portrait"') for scheme in SCHEMES])
    return response


def _reason(error: web.HTTPException) -> str:
    """HTTPNotFound is NOT_FOUND. The phrases of `http.HTTPStatus` differ between Python 3.12 and 3.13."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", type(error).__name__.removeprefix("HTTP")).upper()


def problem(status: int, reason: str, detail: str) -> web.Response:
    """A problem of the type `urn:portrait:REASON`."""
    document = {"type": f"urn:portrait:{reason}", "title": reason, "status": status, "detail": detail}
    return web.json_response(document, status=status, content_type="application/problem+json")
