"""The policy of security.py at the gRPC server's door."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from portrait.errors import Unauthenticated
from portrait.security import Certificates, Pem, Security
from portrait.transports.grpc.status import abort
from portrait.transports.grpc.validation import replaced

OPEN = "/grpc.health.v1.Health/"
"""What an orchestrator asks that has no credentials."""


class Guard(grpc.aio.ServerInterceptor):
    """Lets nobody else pass, to no method but health's. A certificate is required by the handshake already."""

    def __init__(self, security: Security) -> None:
        self._security = security

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
            return _refusing(handler, error)
        return handler


def authorization(metadata: Any) -> str | None:
    """The caller's credentials, of the metadata of a call."""
    given = dict(metadata or ()).get("authorization")
    return given if isinstance(given, str) else None


def _refusing(handler: Any, error: Unauthenticated) -> Any:
    async def refuse(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await abort(context, error)

    return replaced(handler, refuse)


def credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """TLS whose every handshake uses the certificates in force then."""
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
