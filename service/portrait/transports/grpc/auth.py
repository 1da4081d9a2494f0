"""Authentication of gRPC calls, by the rules of portrait.security."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from portrait.errors import Unauthenticated
from portrait.metrics import Metrics
from portrait.security import Certificates, Pem, Security
from portrait.transports.grpc.status import abort
from portrait.transports.grpc.validation import replaced

OPEN = "/grpc.health.v1.Health/"
"""Methods that need no credentials: orchestrators call them and have none."""


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Refuses and counts calls without valid credentials. A client certificate has been required by the handshake."""

    def __init__(self, security: Security, metrics: Metrics) -> None:
        self._security, self._metrics = security, metrics

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of the call, or one that refuses it."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(OPEN):
            return handler
        try:
            self._security.check(authorization(handler_call_details.invocation_metadata), has_certificate=True)
        except Unauthenticated as error:
            self._metrics.refused("grpc", error)
            return _refusing(handler, error)
        return handler


def authorization(metadata: Any) -> str | None:
    """The value of `authorization` in a call's metadata, if it is there."""
    given = dict(metadata or ()).get("authorization")
    return given if isinstance(given, str) else None


def _refusing(handler: Any, error: Unauthenticated) -> Any:
    async def refuse(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await abort(context, error)

    return replaced(handler, refuse)


def credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """TLS in which every handshake uses the current certificates."""
    current = certificates.pem()

    def configuration(pem: Pem) -> Any:
        return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], pem.client_ca)

    def renew() -> Any:
        nonlocal current
        found = certificates.pem()
        if found is current:
            return None
        current = found
        return configuration(found)

    return grpc.dynamic_ssl_server_credentials(configuration(current), renew, certificates.mutual)
