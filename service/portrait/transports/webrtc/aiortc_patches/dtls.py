"""DTLS and SRTP: the suites that are offered, the certificates that are accepted, the sources that are listened to."""

import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiortc.rtcdtlstransport import RTCCertificate, RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport, State
from OpenSSL import SSL

from portrait.transports.webrtc.aiortc_patches.ice import LiveIce
from portrait.transports.webrtc.aiortc_patches.receiver import CameraPackets
from portrait.transports.webrtc.aiortc_patches.udp_socket import LARGEST

logger = logging.getLogger(__name__)

CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA:"
    b"ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384"
)

DIGESTS = ("sha-256", "sha-384", "sha-512")
"""Hashes of fingerprints that count (RFC 8122 section 5); of the others an attacker may know collisions."""


MOST_SOURCES = 1000
"""Sources of media (SSRC) of one connection. A sender has four, and another one each time its encoder starts again;
each has keys, a replay window and statistics, for as long as the connection."""

OWN_DIGEST = "sha-256"
"""The digest of the signature of aiortc's certificates, with which RFC 8829 section 5.2.1 has them announced."""


def get_fingerprints(self: RTCCertificate) -> list[RTCDtlsFingerprint]:
    """The certificate's fingerprint. Replaces RTCCertificate.getFingerprints, which adds SHA-384 and SHA-512.

    libdatachannel takes the last of several. When the connectivity checks are over before it has stored the answer, it
    compares that one with the SHA-256 that it assumes until then, and refuses the certificate.
    """
    return [each for each in _stock_get_fingerprints(self) if each.algorithm == OWN_DIGEST]


def create_ssl_context(self: RTCCertificate, srtp_profiles: list[Any]) -> SSL.Context:
    """As aiortc, with suites for RSA certificates too. Replaces RTCCertificate._create_ssl_context."""
    context = _stock_create_ssl_context(self, srtp_profiles)
    context.set_cipher_list(CIPHERS)
    return context


def validate_peer_identity(self: Any, remoteParameters: RTCDtlsParameters) -> None:  # noqa: N803  # its name there
    """Fail the transport unless the certificate has the signalled fingerprints.

    Replaces RTCDtlsTransport._validate_peer_identity, which parses the certificate to hash it, and so refuses those of
    FFmpeg, every second of which has a negative serial number (RFC 5280 section 4.1.2.2).
    """
    certificate = self._ssl.get_peer_certificate()
    known = [each for each in remoteParameters.fingerprints if each.algorithm.lower() in DIGESTS]
    if (
        certificate is None
        or not known
        or any(certificate.digest(each.algorithm.replace("-", "")).decode() != each.value.upper() for each in known)
    ):
        self._set_state(State.FAILED)


async def receive_next(self: Any) -> None:
    """As aiortc, and all records of a datagram, of which there may be several (RFC 6347 section 4.1.1).

    Replaces RTCDtlsTransport._recv_next, which reads one. The others stayed in OpenSSL's buffer, which grew by as much.

    Raises:
        ConnectionError: the connection has ended.
    """
    await _stock_receive_next(self)
    while self._state is State.CONNECTED:
        try:
            data = self._ssl.recv(LARGEST)
        except SSL.ZeroReturnError:
            raise ConnectionError from None
        except SSL.Error:
            return
        if self._data_receiver is not None:
            await self._data_receiver._handle_data(data)


async def handle_rtp_data(self: Any, data: bytes, arrival_time_ms: int) -> None:
    """As aiortc, for a bounded number of sources. Replaces RTCDtlsTransport._handle_rtp_data.

    A camera's further packets go a shorter way, once none waits on this one that they would overtake.

    Raises:
        ConnectionError: one source too many, which ends the transport.
    """
    source, ice = data[8:12], self.transport._connection
    _register_source(self, source)
    with _dropping_malformed():
        await _stock_handle_rtp_data(self, data, arrival_time_ms)
    receiver = self._rtp_router.ssrc_table.get(int.from_bytes(source, "big"))
    if receiver is not None and isinstance(ice, LiveIce) and ice._queue.empty():
        if ice.cameras is None:
            ice.cameras = CameraPackets(self)
        ice.cameras.add(source, receiver, data[1] & 0x7F)


async def handle_rtcp_data(self: RTCDtlsTransport, data: bytes) -> None:
    """As aiortc, for a bounded number of sources. Replaces RTCDtlsTransport._handle_rtcp_data.

    Raises:
        ConnectionError: one source too many, which ends the transport.
    """
    _register_source(self, data[4:8])
    with _dropping_malformed():
        await _stock_handle_rtcp_data(self, data)


@contextmanager
def _dropping_malformed() -> Iterator[None]:
    """Drop a packet of which a part has another length than its type's: aiortc ends the connection with a traceback."""
    try:
        yield
    except struct.error as error:
        logger.debug("a packet ignored: %s", error)


def _register_source(transport: RTCDtlsTransport, source: bytes) -> None:
    sources: set[bytes] = vars(transport).setdefault("_sources", set())
    if source not in sources:
        if len(sources) >= MOST_SOURCES:
            logger.warning("a connection ends: got media of more than %d sources", MOST_SOURCES)
            raise ConnectionError
        sources.add(source)


_stock_create_ssl_context = RTCCertificate._create_ssl_context
_stock_receive_next = RTCDtlsTransport._recv_next
_stock_get_fingerprints = RTCCertificate.getFingerprints
_stock_handle_rtp_data = RTCDtlsTransport._handle_rtp_data
_stock_handle_rtcp_data = RTCDtlsTransport._handle_rtcp_data
