"""Trust among pods: TLS 1.3 both ways, with an authority that each pod derives from the shared secret.

Nothing is distributed besides the secret. Every pod computes the same authority key and issues itself a certificate for
its own address at its start. It answers holders of such certificates only, and talks to an address only if the one
there names it. TLS keeps what is forwarded private and whole, and a recorded request cannot be sent again.
"""

import ipaddress
import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the group of the curve P-256 (FIPS 186-5): private keys are numbers from 1 to one less."""

EARLIER, LIFE = timedelta(days=1), timedelta(days=3650)
"""Validity before and after a pod's start. Clocks differ, and a pod that runs for years must not lose its peers."""


def derive(secret: str, purpose: str, size: int = 32) -> bytes:
    """Derive a key of `size` bytes for one purpose from the shared secret (HKDF, RFC 5869)."""
    return HKDF(hashes.SHA256(), size, salt=None, info=f"portrait cluster {purpose}".encode()).derive(secret.encode())


@dataclass(frozen=True, slots=True)
class ClusterTls:
    """What a pod proves itself with, and whom it believes: PEM texts."""

    authority: bytes
    certificate: bytes
    key: bytes

    @classmethod
    def of(cls, secret: str, address: str) -> "ClusterTls":
        """Make the credentials of the pod with this address."""
        authority, key = _authority(secret), ec.generate_private_key(ec.SECP256R1())
        own = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        issued = (
            _certificate(address, "portrait cluster", key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(own, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
            .sign(authority, hashes.SHA256())
        )
        root = (
            _certificate("portrait cluster", "portrait cluster", authority.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(authority, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return cls(root.public_bytes(pem), issued.public_bytes(pem), private)

    def server_context(self) -> ssl.SSLContext:
        """TLS for a server that only pods of the cluster may call."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        return self._filled(context)

    def client_context(self) -> ssl.SSLContext:
        """TLS for calls to pods of the cluster; the certificate must name the address that is called."""
        return self._filled(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def _filled(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(cadata=self.authority.decode())
        # Python loads a certificate from a path only, and a pod may have no folder to write to.
        descriptor = os.memfd_create("cluster-tls")
        try:
            os.write(descriptor, self.certificate + self.key)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return context


def _authority(secret: str) -> ec.EllipticCurvePrivateKey:
    # 48 bytes for 32: the remainder is then as good as uniform (FIPS 186-5, A.2.1).
    number = int.from_bytes(derive(secret, "authority", 48)) % (P256_ORDER - 1) + 1
    return ec.derive_private_key(number, ec.SECP256R1())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(subject: str, issuer: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
