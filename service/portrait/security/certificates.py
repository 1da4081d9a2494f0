"""Certificates: TLS for both servers, from files that may be replaced while it runs."""

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

LOOK_SECONDS = 60.0
"""How often the box's names are looked at."""


@dataclass(frozen=True, eq=False)
class Pem:
    """What the files hold. `eq=False`: a new reading is another value."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    context: ssl.SSLContext


class Certificates:
    """The server's certificate and key and, for mutual TLS, the authority of its clients.

    Raises:
        BadSettings: a file cannot be read, is no PEM, or the key is another certificate's.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._paths = certificate, key, client_ca
        self._pem = Watched([certificate, key, *([client_ca] if client_ca else [])], self._load)

    @property
    def mutual(self) -> bool:
        """Whether clients need a certificate."""
        return self._paths[2] is not None

    def pem(self) -> Pem:
        """What is in force now; the same object until a file changes."""
        return self._pem.get()

    def context(self) -> ssl.SSLContext:
        """For an HTTP server: every handshake uses what is in force then.

        A client's certificate is asked for, not required: health and metrics stay open. `Security.check` looks.
        """
        context = self._make_context()

        def renew(connection: ssl.SSLObject, name: str | None, original: ssl.SSLContext) -> None:
            connection.context = self.pem().context

        # The only hook before the certificate is sent; it is called for clients that name no host as well.
        context.sni_callback = renew
        return context

    def expiries(self) -> Mapping[str, float]:
        """When each certificate ends, in seconds of the epoch: `server` and, for mutual TLS, `client_ca`."""
        pem = self.pem()
        files = {"server": pem.certificate} | ({"client_ca": pem.client_ca} if pem.client_ca else {})
        return {
            name: min(one.not_valid_after_utc.timestamp() for one in x509.load_pem_x509_certificates(data))
            for name, data in files.items()
        }

    @property
    def authority(self) -> Authority | None:
        """The site's own authority, where that issued the certificate."""
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
                # A ticket would let a client back in whose authority has been replaced.
                context.num_tickets = 0
                context.options |= ssl.OP_NO_TICKET
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            files = f"{certificate}, {key}" + (f", {client_ca}" if client_ca else "")
            raise BadSettings(f"PORTRAIT_TLS_*: {files} cannot be used: {error}") from error
        return context


class OwnCertificates(Certificates):
    """A certificate of the site's own authority, renewed before it ends and when the box is called otherwise.

    Raises:
        BadSettings: the authority's folder cannot be used.
    """

    def __init__(self, authority: Authority, client_ca: Path | None) -> None:
        self._authority, self._looked = authority, time.monotonic()
        super().__init__(authority.certificate, authority.key, client_ca)

    @property
    def authority(self) -> Authority:
        """The site's own authority."""
        return self._authority

    def pem(self) -> Pem:
        """What is in force now; looks once a minute, at a handshake, whether it has to be renewed."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            try:
                self._authority.renew()
            except BadSettings:
                logger.exception("the certificate could not be renewed, the old one stays in force")
        return super().pem()
