"""Who may call: one policy for gRPC, HTTP and WebRTC signalling.

A client must satisfy everything that is configured: a certificate where there is an authority for clients, and a bearer
token where there are tokens or keys. With neither the service is open, which is safe on the loopback interface only.
"""

import asyncio
import base64
import binascii
import ipaddress
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from portrait.errors import BadSettings, Unauthenticated
from portrait.security.authority import Authority, box_names
from portrait.security.bearers import Bearer, SignedTokens, Tokens
from portrait.security.certificates import Certificates, OwnCertificates, Pem
from portrait.settings import Settings

__all__ = ["Certificates", "Pem", "Security", "is_loopback", "open_security", "own_authority"]

logger = logging.getLogger(__name__)

LONGEST = 16 * 1024
"""Characters of an Authorization header, at most; a signed token has about one thousand."""

CHECK_SECONDS = 2.0
"""How often the token of an open stream or connection is checked again."""


class Security:
    """Decides who may call. Opened by `open_security`."""

    def __init__(self, certificates: Certificates | None, bearers: Sequence[Bearer]) -> None:
        self.certificates, self._bearers = certificates, bearers

    @classmethod
    def allow_all(cls) -> "Security":
        """Return the policy of an open service."""
        return cls(None, [])

    @property
    def open(self) -> bool:
        """Whether any client may call."""
        return not self._bearers and not (self.certificates and self.certificates.mutual)

    @property
    def wants_token(self) -> bool:
        """Whether a call needs a bearer token."""
        return bool(self._bearers)

    def check(self, authorization: str | None, has_certificate: bool) -> None:
        """Check the credentials of a call.

        Args:
            authorization: the header or metadata entry of that name: `Bearer TOKEN`, or `Basic` with the token as the
                password, which a browser can ask its user for.
            has_certificate: whether TLS has verified a client certificate.

        Raises:
            Unauthenticated: says what is missing; never repeats a credential.
        """
        if self.certificates is not None and self.certificates.mutual and not has_certificate:
            raise Unauthenticated("got no client certificate, expected one of a trusted authority")
        if not self._bearers:
            return
        if authorization is None:
            raise Unauthenticated("got no credentials, expected Authorization: Bearer TOKEN")
        token = _token(authorization)
        if token is None:
            raise Unauthenticated("got credentials of another form, expected Authorization: Bearer TOKEN")
        if all(bearer.name_of(token) is None for bearer in self._bearers):
            raise Unauthenticated("the token is unknown, not valid yet or no longer valid")

    @asynccontextmanager
    async def holding(self, authorization: str | None, end: Callable[[Unauthenticated], None]) -> AsyncIterator[None]:
        """Keep checking the token of a stream or connection, for the length of the block.

        Once the token has been revoked or has expired, `end` is called, once and within CHECK_SECONDS. A client's
        certificate is checked by TLS at each handshake.
        """

        async def check() -> None:
            while True:
                await asyncio.sleep(CHECK_SECONDS)
                try:
                    self.check(authorization, has_certificate=True)
                except Unauthenticated as error:
                    end(error)
                    return
                except Exception as error:
                    # If this task ended, a revoked token would stay valid for ever. The error's text is not logged: it
                    # may hold the token.
                    logger.error("a token could not be checked again: %s", type(error).__name__)
                    end(Unauthenticated("the token could not be checked again"))
                    return

        if not self._bearers:
            yield
            return
        checking = asyncio.create_task(check(), name="token-check")
        try:
            yield
        finally:
            checking.cancel()
            await asyncio.gather(checking, return_exceptions=True)


def open_security(settings: Settings, *, create: bool = True) -> Security:
    """Build the policy from the settings.

    With `create=False` nothing is written: `certificates` is None while the site's own authority has not been made.

    Raises:
        BadSettings: a file cannot be used, settings contradict each other, or other machines would be served without
            authentication or TLS and `insecure` is not set.
    """
    if settings.jwt_keys is None and (settings.jwt_audience or settings.jwt_issuer):
        raise BadSettings("PORTRAIT_JWT_AUDIENCE and PORTRAIT_JWT_ISSUER need PORTRAIT_JWT_KEYS")
    certificates = _open_certificates(settings, create)
    bearers: list[Bearer] = []
    if settings.tokens is not None:
        bearers.append(Tokens(settings.tokens))
    if settings.jwt_keys is not None:
        bearers.append(SignedTokens(settings.jwt_keys, settings.jwt_audience, settings.jwt_issuer))
    security = Security(certificates, bearers)
    _check_exposure(security, settings)
    return security


def _open_certificates(settings: Settings, create: bool) -> Certificates | None:
    certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    if settings.tls == "auto":
        if certificate or key:
            raise BadSettings(
                "PORTRAIT_TLS=auto makes its own certificate: expected no PORTRAIT_TLS_CERTIFICATE and PORTRAIT_TLS_KEY"
            )
        authority = own_authority(settings)
        if create:
            authority.renew()
        elif not authority.read():
            return None
        return OwnCertificates(authority, client_ca)
    if (certificate is None) != (key is None) or (client_ca and certificate is None):
        raise BadSettings(
            "PORTRAIT_TLS_CERTIFICATE and PORTRAIT_TLS_KEY go together, and PORTRAIT_TLS_CLIENT_CA needs both"
        )
    return Certificates(certificate, key, client_ca) if certificate and key else None


def own_authority(settings: Settings) -> Authority:
    """Return the site's own authority in the data folder; nothing is read or written yet."""
    return Authority(settings.data_folder / "authority", lambda: box_names(*settings.own_names))


def _check_exposure(security: Security, settings: Settings) -> None:
    missing = [*(["authentication"] if security.open else []), *([] if settings.encrypted else ["TLS"])]
    if is_loopback(settings.host) or not missing:
        return
    what = f"PORTRAIT_HOST={settings.host!r}: other machines are served without {' and '.join(missing)}"
    if not settings.insecure:
        raise BadSettings(f"{what}; set PORTRAIT_TOKENS and PORTRAIT_TLS=auto, or PORTRAIT_INSECURE=true to allow it")
    logger.warning("%s; anyone who reaches it can %s", what, "use it" if security.open else "read the traffic")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _token(authorization: str) -> str | None:
    scheme, _, rest = authorization.strip().partition(" ")
    # Bytes that are not UTF-8 arrive as surrogates, which each step below would reject with an error of its own.
    if len(authorization) > LONGEST or not authorization.isascii():
        return None
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None
