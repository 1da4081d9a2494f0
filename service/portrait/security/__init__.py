"""Security: one policy for gRPC, HTTP and WebRTC's signalling alike.

What is configured must be satisfied: a client's certificate where there is an authority for them, and a bearer token
where there are tokens or keys. Nothing configured is an open service, which is right on the loopback interface only.
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

__all__ = ["Certificates", "Pem", "Security", "is_loopback", "open_security"]

logger = logging.getLogger(__name__)

LONGEST = 16 * 1024
"""Characters of an Authorization header; a signed token has about one thousand."""

LOOK_SECONDS = 2.0
"""How long a credential that is no longer valid may keep open what it has opened."""


class Security:
    """Who may call. Opened by `open_security`."""

    def __init__(
        self, certificates: Certificates | None, bearers: Sequence[Bearer], refused: Callable[[str], None]
    ) -> None:
        self.certificates = certificates
        self._bearers, self._refused = bearers, refused

    @classmethod
    def nobody_asked(cls) -> "Security":
        """Everybody may call."""
        return cls(None, [], lambda _: None)

    @property
    def open(self) -> bool:
        """Whether everybody may call."""
        return not self._bearers and not (self.certificates and self.certificates.mutual)

    @property
    def wants_token(self) -> bool:
        """Whether a call must bring a bearer token."""
        return bool(self._bearers)

    def check(self, authorization: str | None, has_certificate: bool) -> None:
        """Let a call pass, or not.

        Args:
            authorization: the header or metadata entry of that name: `Bearer TOKEN`, or `Basic` with the token as the
                password, which is what a browser can ask its user for.
            has_certificate: whether TLS has verified a certificate of the client's.

        Raises:
            Unauthenticated: says what is missing, never what came.
        """
        try:
            self._check(authorization, has_certificate)
        except Unauthenticated as error:
            self._refused(error.reason)
            raise

    @asynccontextmanager
    async def holding(self, authorization: str | None, end: Callable[[Unauthenticated], None]) -> AsyncIterator[None]:
        """For what a call opens and what lasts: a stream, a connection.

        When the token it was opened with has been taken back or has expired, `end` is called once, within
        LOOK_SECONDS. A client's certificate is TLS's matter: it is looked at with every handshake.
        """

        async def look() -> None:
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                try:
                    self._check(authorization, has_certificate=True)
                except Unauthenticated as error:
                    end(error)
                    return
                except Exception as error:
                    # Nobody waits for this task: without it a token that is taken back would hold for ever. Of the
                    # error the kind only: its words may hold the token.
                    logger.error("a token could not be looked at again: %s", type(error).__name__)
                    end(Unauthenticated("the token could not be looked at again"))
                    return

        if not self._bearers:
            yield
            return
        looking = asyncio.create_task(look(), name="security-look")
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    def _check(self, authorization: str | None, has_certificate: bool) -> None:
        if self.certificates is not None and self.certificates.mutual and not has_certificate:
            raise Unauthenticated("no certificate came; expected one of a known authority")
        if not self._bearers:
            return
        if authorization is None:
            raise Unauthenticated("no credentials came; expected Authorization: Bearer TOKEN")
        token = _token(authorization)
        if token is None:
            raise Unauthenticated("credentials of another form came; expected Authorization: Bearer TOKEN")
        if all(bearer.name_of(token) is None for bearer in self._bearers):
            raise Unauthenticated("the token is unknown, not valid yet or no longer valid")


def open_security(settings: Settings, refused: Callable[[str], None] = lambda _: None) -> Security:
    """The policy of the settings; `refused` is told the reason of every refusal.

    Raises:
        BadSettings: a file cannot be used, settings do not fit together, or other machines would be served without
            authentication and TLS and `insecure` is not set.
    """
    if settings.jwt_keys is None and (settings.jwt_audience or settings.jwt_issuer):
        raise BadSettings("PORTRAIT_JWT_AUDIENCE and PORTRAIT_JWT_ISSUER need PORTRAIT_JWT_KEYS")
    certificates = _open_certificates(settings)
    bearers: list[Bearer] = []
    if settings.tokens is not None:
        bearers.append(Tokens(settings.tokens))
    if settings.jwt_keys is not None:
        bearers.append(SignedTokens(settings.jwt_keys, settings.jwt_audience, settings.jwt_issuer))
    security = Security(certificates, bearers, refused)
    _check_exposure(security, settings)
    return security


def _open_certificates(settings: Settings) -> Certificates | None:
    certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    if settings.tls == "auto":
        if certificate or key:
            raise BadSettings(
                "PORTRAIT_TLS=auto makes its own certificate: PORTRAIT_TLS_CERTIFICATE and _KEY are too much"
            )
        authority = Authority(settings.data_folder / "authority", lambda: box_names(*settings.own_names))
        return OwnCertificates(authority, client_ca)
    if (certificate is None) != (key is None) or (client_ca and certificate is None):
        raise BadSettings("PORTRAIT_TLS_CERTIFICATE and PORTRAIT_TLS_KEY go together, and come before a client CA")
    return Certificates(certificate, key, client_ca) if certificate and key else None


def _check_exposure(security: Security, settings: Settings) -> None:
    missing = [*(["authentication"] if security.open else []), *(["TLS"] if security.certificates is None else [])]
    if is_loopback(settings.host) or not missing:
        return
    what = f"PORTRAIT_HOST={settings.host!r}: other machines are served without {' and '.join(missing)}"
    if not settings.insecure:
        raise BadSettings(f"{what}; set PORTRAIT_TOKENS and PORTRAIT_TLS=auto, or PORTRAIT_INSECURE=true to allow it")
    logger.warning("%s; whoever reaches it can %s", what, "use it" if security.open else "read what travels")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _token(authorization: str) -> str | None:
    scheme, _, rest = authorization.strip().partition(" ")
    # What is no UTF-8 comes as surrogates, at which every step below would stumble in its own way.
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
