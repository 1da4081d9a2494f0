"""A site's own certificate authority: TLS on a LAN, where no public authority issues certificates.

The authority and the certificate it issues for this box are files in a folder. A device that trusts the authority once
trusts every renewal. Certificates follow the rules that phones and browsers enforce: names only in subjectAltName, at
most 825 days (support.apple.com/103769), key identifiers (RFC 5280 section 4.2.1).
"""

import contextlib
import errno
import fcntl
import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import ifaddr
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from portrait.errors import BadSettings

logger = logging.getLogger(__name__)

AUTHORITY_LIFE = timedelta(days=3650)
LIFE, RENEWED_BEFORE = timedelta(days=180), timedelta(days=60)
"""How long the box's certificate is valid, and how long before its end the next one is issued."""

MOST_NAMES = 64
"""Names in the box's certificate, at most; those of networks it has left are kept. A box whose addresses change daily
(RFC 8981) would have hundreds after a year, and send all of them with each handshake."""

EARLIER = timedelta(days=1)
"""How long before now a certificate becomes valid: the clocks of phones are not exact."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class Authority:
    """The folder of an authority. `names` gives the box's DNS names and IP addresses at this moment.

    Making the object touches no file: `renew` writes, `read` only reads.
    """

    def __init__(
        self,
        folder: Path,
        names: Callable[[], frozenset[str]],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.folder, self._names, self._clock = folder, names, clock
        self.authority, self.certificate, self.key = folder / "ca.crt", folder / "server.crt", folder / "server.key"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the authority's certificate, in the form that devices show before they trust it."""
        found = x509.load_pem_x509_certificate(self.authority.read_bytes())
        return found.fingerprint(hashes.SHA256()).hex(":").upper()

    def read(self) -> bool:
        """Whether authority and certificate have been made; writes nothing.

        Raises:
            BadSettings: the folder cannot be read or written, or holds something else.
        """
        with self._errors_as_bad_settings():
            if self.folder.exists() and not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.folder))
            if not (self.authority.exists() and self.certificate.exists()):
                return False
            self._load()
            return True

    def renew(self) -> bool:
        """Issue a certificate for the box when there is none, it ends soon or lacks a name; whether that was so.

        Raises:
            BadSettings: the folder cannot be written, or holds something else.
        """
        with self._errors_as_bad_settings():
            with self._locked():
                made, issued = self._make(), self._issue()
            # Logged without the lock, for which the other workers wait.
            if made:
                logger.info("made an authority in %s, SHA-256 %s", self.folder, self.fingerprint)
            if issued:
                names = sorted(names_of(issued))
                logger.info("issued a certificate until %s for %s", issued.not_valid_after_utc, names)
            return issued is not None

    def _make(self) -> bool:
        if self.authority.exists():
            return False
        pair = _make_authority(self._clock())
        _write(self.folder / "ca.key", _pem(pair.key))
        _write(self.authority, pair.certificate.public_bytes(serialization.Encoding.PEM))
        return True

    def _issue(self) -> x509.Certificate | None:
        names, now = self._names(), self._clock()
        if self.certificate.exists() and self.key.exists():
            found = x509.load_pem_x509_certificate(self.certificate.read_bytes())
            # Further names in it are those of a network that the box may return to.
            if found.not_valid_after_utc - now > RENEWED_BEFORE and names <= names_of(found):
                return None
            together = names | names_of(found)
            if found.not_valid_after_utc > now and len(together) <= MOST_NAMES:
                names = together
        pair = _issue(self._load(), names, now)
        # The key first: while key and certificate do not match, the pair before stays in use (watched.py).
        _write(self.key, _pem(pair.key))
        chain = pair.certificate.public_bytes(serialization.Encoding.PEM) + self.authority.read_bytes()
        _write(self.certificate, chain)
        return pair.certificate

    def _load(self) -> Pair:
        key = serialization.load_pem_private_key((self.folder / "ca.key").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("ca.key: expected an elliptic-curve key")
        return Pair(x509.load_pem_x509_certificate(self.authority.read_bytes()), key)

    @contextlib.contextmanager
    def _errors_as_bad_settings(self) -> Iterator[None]:
        """Raise errors of the folder as BadSettings."""
        try:
            yield
        except OSError as error:
            raise BadSettings(
                f"PORTRAIT_DATA={str(self.folder.parent)!r}: {error.strerror}: {error.filename}"
            ) from error
        except ValueError as error:
            raise BadSettings(f"{self.folder}: holds no authority: {error}") from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder's lock for the length of the block: workers share the folder."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def box_names(*further: str) -> frozenset[str]:
    """Return the names of this box at this moment: its host name, its addresses, and `further` ones."""
    host = socket.gethostname().lower()
    names = {"localhost", "127.0.0.1", "::1", host, f"{host.split('.')[0]}.local", *further}
    for adapter in ifaddr.get_adapters():
        names |= {address.ip if isinstance(address.ip, str) else address.ip[0] for address in adapter.ips}
    return frozenset(filter(_can_be_named, (name.partition("%")[0] for name in names)))


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """Return the names and addresses in a certificate."""
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = (str(address) for address in found.get_values_for_type(x509.IPAddress))
    return frozenset([*found.get_values_for_type(x509.DNSName), *addresses])


def _can_be_named(name: str) -> bool:
    with contextlib.suppress(ValueError):
        # A link-local address needs its interface beside it, so no certificate can name it.
        return not ipaddress.ip_address(name).is_link_local
    return name.isascii() and bool(name)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + life)
        .add_extension(identifier, critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _make_authority(now: datetime) -> Pair:
    key, name = ec.generate_private_key(ec.SECP256R1()), _name(f"portrait on {socket.gethostname()}")
    builder = (
        _builder(name, key, now, AUTHORITY_LIFE)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
    )
    return Pair(builder.sign(key, hashes.SHA256()), key)


def _issue(authority: Pair, names: frozenset[str], now: datetime) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = (
        _builder(_name(socket.gethostname()), key, now, LIFE)
        .issuer_name(authority.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in sorted(names)]), critical=False)
        .add_extension(issuer, critical=False)
    )
    return Pair(builder.sign(authority.key, hashes.SHA256()), key)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def _write(path: Path, data: bytes) -> None:
    """Write the whole file or nothing of it; keys can be read by their owner only."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if path.suffix == ".key" else 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    fresh.rename(path)
