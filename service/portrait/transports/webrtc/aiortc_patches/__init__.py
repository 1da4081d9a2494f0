"""What aiortc and aioice do for recordings that a live service must not. Their internals are touched only here.

Replaced for the process, by `install`:

1. The encoders, which are slow and lose their state, and the decoders, which allocate any size (`video_codecs.py`).
2. The thread that decodes for every receiver and hands each picture to the event loop, which would hand it on to the
   session's thread. The session's thread decodes (`receiver.py`; `backlog.py` beside this package).
3. The times of pictures: aiortc counts what it receives from 0 and adds a random origin to what it sends. Here a
   picture leaves with the RTP timestamp it came with, so that a client finds the frame that a mask belongs to.
4. Intervals measured by the time of day. When that jumps by nine days or more, as on a box without a battery that
   learns the time late, the jitter no longer fits its report, reports cease, and no connection can be closed.
5. Payloads that cannot be parsed: aiortc drops the packet and then waits for it (`receiver.py`).
6. The choice of codecs: aiortc takes H.264 in baseline and packetization mode 1 only (`codecs.py`).
7. STUN: aioice parses every packet as STUN first, raises on messages that lack or misstate an attribute, keeps
   datagrams and addresses of a peer without a bound, and, closed at the moment in which it connects, asks for its
   peer's consent forever (`udp_socket.py`, `ice.py`).
8. DTLS: aiortc offers cipher suites for ECDSA only, while GStreamer and others bring RSA certificates, it parses
   certificates that it need only hash, it announces its own by three fingerprints, it keeps state for any number of
   sources of media, it ends a connection for a malformed packet, and it reads one record of a datagram and keeps the
   others (`dtls.py`).
9. RTCP BYE, with which aiortc ends a track. It says that one source has left (RFC 3550 section 6.6), as an encoder does
   that starts again with another one. A peer that leaves closes the connection, or falls silent.
10. Sending: aiortc builds, encrypts and sends a picture packet by packet, and sends one again as often as a request
    names it (`sender.py`, `udp_socket.py`).

Replaced in each connection:

11. The jitter buffer and the NACK generator of a camera. aiortc hands a picture over when the first packet of the next
    one arrives, a frame's interval later than the RTP marker allows (RFC 3550 section 5.1; RFC 7741 section 4.1; RFC
    6184 section 5.1); it asks once for a lost packet, waits for it until 512 later ones have come, takes padding for a
    picture and does work in proportion to a jump of sequence numbers (`receiver.py`).
12. The bandwidth estimate of a camera, which begins at whatever the sender sends and rises by 8 % a second
    (`receiver.py`).
13. The encoder of a sender, which runs where its pictures are made (`video_codecs.py`).
14. What clients send on data channels, which is kept without a bound, and SCTP's packets, one of which can hold the
    event loop up for seconds, or for ever (`data_channels.py`).
15. A publisher's sound, which aiortc decodes, and the times in a viewer's sender reports (`sound.py`).
16. The way of a camera's packets, each of which waits in a queue for a task (`receiver.py`).
17. UDP sockets, which are bound to any port, one for each connection, and read one datagram per turn of the event loop
    (`media_ports.py`, `shared_port.py`, `udp_socket.py`). TCP, which aioice knows through TURN only (`tcp_port.py`).

Each is small, written against the releases in TESTED, and refused with any other; tests fail when upstream changes.
"""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import aiortc
from aioice.ice import StunProtocol
from aiortc import rtcdtlstransport, rtcicetransport, rtcpeerconnection, rtcrtpreceiver, rtcrtpsender, rtcsctptransport

from portrait.transports.webrtc.aiortc_patches.codecs import find_common_codecs
from portrait.transports.webrtc.aiortc_patches.data_channels import decode_params
from portrait.transports.webrtc.aiortc_patches.dtls import (
    create_ssl_context,
    get_fingerprints,
    handle_rtcp_data,
    handle_rtp_data,
    receive_next,
    validate_peer_identity,
)
from portrait.transports.webrtc.aiortc_patches.ice import LiveIce
from portrait.transports.webrtc.aiortc_patches.receiver import UnwrappedTime, depayload
from portrait.transports.webrtc.aiortc_patches.sender import handle_rtcp_packet, retransmit, run_rtp
from portrait.transports.webrtc.aiortc_patches.sound import SoundSink
from portrait.transports.webrtc.aiortc_patches.udp_socket import datagram_received
from portrait.transports.webrtc.aiortc_patches.video_codecs import bounded_decoder, live_encoder
from portrait.transports.webrtc.backlog import Backlog

TESTED = ("1.16.0",)
"""Releases of aiortc whose internals are what the patches expect."""

STEADY = SimpleNamespace(time=time.monotonic)
"""Replaces the module `time` where only intervals matter."""


class _NoPacket:
    """What no packet is an instance of."""


def install() -> None:
    """Replace these parts of aiortc for the process. Idempotent.

    Raises:
        RuntimeError: aiortc is another release than those in TESTED.
    """
    if aiortc.__version__ not in TESTED:
        raise RuntimeError(f"got aiortc {aiortc.__version__}, expected {' or '.join(TESTED)}: it is changed internally")
    rtcrtpsender.get_encoder = live_encoder  # type: ignore[attr-defined]  # not its public name
    rtcrtpreceiver.get_decoder = bounded_decoder  # type: ignore[attr-defined]
    rtcrtpreceiver.decoder_worker = _decode  # type: ignore[assignment]
    rtcrtpreceiver.depayload = depayload  # type: ignore[attr-defined]
    rtcrtpreceiver.TimestampMapper = UnwrappedTime  # type: ignore[assignment, misc]
    rtcrtpreceiver.RtcpByePacket = _NoPacket  # type: ignore[attr-defined, assignment]
    rtcpeerconnection.find_common_codecs = find_common_codecs
    for module in (rtcrtpreceiver, rtcrtpsender, rtcsctptransport):
        module.time = STEADY  # type: ignore[attr-defined]
    rtcsctptransport.decode_params = decode_params
    StunProtocol.datagram_received = datagram_received  # type: ignore[method-assign]
    rtcicetransport.Connection = LiveIce  # type: ignore[attr-defined]
    rtcdtlstransport.RTCCertificate._create_ssl_context = create_ssl_context  # type: ignore[method-assign]
    rtcdtlstransport.RTCCertificate.getFingerprints = get_fingerprints  # type: ignore[method-assign]
    rtcdtlstransport.RTCDtlsTransport._validate_peer_identity = validate_peer_identity  # type: ignore[method-assign]
    rtcdtlstransport.RTCDtlsTransport._recv_next = receive_next  # type: ignore[method-assign]
    rtcdtlstransport.RTCDtlsTransport._handle_rtp_data = handle_rtp_data  # type: ignore[method-assign]
    rtcdtlstransport.RTCDtlsTransport._handle_rtcp_data = handle_rtcp_data  # type: ignore[method-assign]
    rtcrtpsender.RTCRtpSender._run_rtp = run_rtp  # type: ignore[method-assign]
    rtcrtpsender.RTCRtpSender._retransmit = retransmit  # type: ignore[method-assign]
    rtcrtpsender.RTCRtpSender._handle_rtcp_packet = handle_rtcp_packet  # type: ignore[method-assign]


def _decode(loop: asyncio.AbstractEventLoop, waiting: Any, *others: Any) -> None:
    """The whole work of a receiver's thread: none where a session decodes or sound is passed on, else as aiortc."""
    if not isinstance(waiting, Backlog | SoundSink):
        _stock_decode(loop, waiting, *others)


_stock_decode = rtcrtpreceiver.decoder_worker
