"""Tokens, certificates and keys of the tests, and a service that asks for them."""

import base64
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from portrait.server.app import RunningService, run_service
from portrait.settings import Settings

TOKEN, OTHER = "0123456789abcdef-camera", "fedcba9876543210-office"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(f"# who, and what they show\ncamera {TOKEN}\n\noffice  {OTHER}  # second floor\n")
    return file


@dataclass(frozen=True)
class Authority:
    """A CA of the tests."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls, name: str = "tests") -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        return cls(key, _certificate(name, key.public_key(), name, key, ca=True))

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, folder: Path, name: str, days: float = 30) -> tuple[Path, Path]:
        """The files of a certificate and its key, put there as one who renews it does."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self.certificate.subject.rfc4514_string().removeprefix("CN=")
        certificate = _certificate(name, key.public_key(), issuer, self.key, days=days)
        paths = folder / f"{name}.crt", folder / f"{name}.key"
        encoding = serialization.Encoding.PEM
        private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        for path, data in zip(paths, (certificate.public_bytes(encoding), private), strict=True):
            replace(path, data)
        return paths


def replace(path: Path, data: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(data)
    fresh.rename(path)


def _certificate(name: str, public: Any, issuer: str, key: Any, *, ca: bool = False, days: float = 30) -> Any:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        # Python 3.13 asks for all three (RFC 5280, 4.2.1.1 to 4.2.1.3).
        .add_extension(_usage(ca), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    return builder.sign(key, hashes.SHA256())


def _usage(ca: bool) -> x509.KeyUsage:
    """Signing certificates, or handshakes."""
    return x509.KeyUsage(
        digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


@pytest.fixture
def authority() -> Authority:
    return Authority.new()


@asynccontextmanager
async def serving(settings: Settings, **changes: Any) -> AsyncIterator[RunningService]:
    async with run_service(settings.model_copy(update=changes)) as running:
        yield running


async def http_status(running: RunningService, path: str, authorization: str | None = None, **options: Any) -> int:
    scheme = "https" if "ssl" in options else "http"
    headers = {} if authorization is None else {"Authorization": authorization}
    url = f"{scheme}://localhost:{running.http_port}{path}"
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers, **options) as response:
        return response.status


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def trusting(authority: Authority, *own: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    if own:
        context.load_cert_chain(*own)
    return context
