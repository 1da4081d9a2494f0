"""TLS certificates for both servers, from files that may be replaced while the service runs."""

import logging
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from portrait.errors import BadSettings
from portrait.security.authority import Authority
from portrait.security.watched import Watched, read

logger = logging.getLogger(__name__)

CHECK_SECONDS = 60.0
"""How often the box's own names are checked."""


@dataclass(frozen=True, eq=False)
class Pem:
    """The content of the files. Compared by identity: each reading is another value."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    context: ssl.SSLContext


class Certificates:
    """The server's certificate and key and, for mutual TLS, the authority of its clients.

    Raises:
        BadSettings: a file cannot be read or is not PEM, or the key does not match the certificate.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._paths = certificate, key, client_ca
        self._pem = Watched([certificate, key, *([client_ca] if client_ca else [])], self._load)

    @property
    def mutual(self) -> bool:
        """Whether clients need a certificate."""
        return self._paths[2] is not None

    def pem(self) -> Pem:
        """Return what is in use now; the same object until a file changes."""
        return self._pem.get()

    def context(self) -> ssl.SSLContext:
        """Return a context for an HTTP server; each handshake uses the certificate in use at that moment.

        A client certificate is requested, not required: health and metrics stay open. `Security.check` requires it.
        """
        context = self._make_context()

        def renew(connection: ssl.SSLObject, name: str | None, original: ssl.SSLContext) -> None:
            connection.context = self.pem().context

        # The only hook before the certificate is sent; also called for clients that send no server name.
        context.sni_callback = renew
        return context

    def expiries(self) -> Mapping[str, float]:
        """Return when each certificate ends, in seconds since the epoch: `server` and, for mutual TLS, `client_ca`."""
        pem = self.pem()
        files = {"server": pem.certificate} | ({"client_ca": pem.client_ca} if pem.client_ca else {})
        return {
            name: min(one.not_valid_after_utc.timestamp() for one in x509.load_pem_x509_certificates(data))
            for name, data in files.items()
        }

    @property
    def authority(self) -> Authority | None:
        """The site's own authority if it issued the certificate, else None."""
        return None

    def _load(self) -> Pem:
        certificate, key, client_ca = self._paths
        return Pem(
            read("PORTRAIT_TLS_CERTIFICATE", certificate),
            read("PORTRAIT_TLS_KEY", key),
            read("PORTRAIT_TLS_CLIENT_CA", client_ca) if client_ca else None,
            self._make_context(),
        )

    def _make_context(self) -> ssl.SSLContext:
        certificate, key, client_ca = self._paths
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(certificate, key)
            if client_ca is not None:
                context.load_verify_locations(client_ca)
                context.verify_mode = ssl.CERT_OPTIONAL
                # A session ticket would let a client in again after its authority was replaced.
                context.num_tickets = 0
                context.options |= ssl.OP_NO_TICKET
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            files = f"{certificate}, {key}" + (f", {client_ca}" if client_ca else "")
            raise BadSettings(f"PORTRAIT_TLS_*: {files} cannot be used: {error}") from error
        return context


class OwnCertificates(Certificates):
    """A certificate of the site's own authority, renewed before it ends and when the box gets another name.

    Raises:
        BadSettings: the authority's folder cannot be used.
    """

    def __init__(self, authority: Authority, client_ca: Path | None) -> None:
        self._authority, self._checked_at = authority, time.monotonic()
        super().__init__(authority.certificate, authority.key, client_ca)

    @property
    def authority(self) -> Authority:
        """The site's own authority."""
        return self._authority

    def pem(self) -> Pem:
        """Return what is in use now; once a minute, at a handshake, checks whether it must be renewed."""
        now = time.monotonic()
        if now - self._checked_at >= CHECK_SECONDS:
            self._checked_at = now
            try:
                self._authority.renew()
            except BadSettings:
                logger.exception("the certificate could not be renewed; the old one stays in use")
        return super().pem()
