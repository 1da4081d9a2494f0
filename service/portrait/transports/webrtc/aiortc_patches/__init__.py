"""What aiortc does for recordings and a live service must not: everything reached into is reached into here.

1. Its jitter buffer hands a picture over when the first packet of the next one has come: a frame's interval of latency.
   The RTP marker says that a picture is whole (RFC 3550 section 5.1; RFC 7741 section 4.1; RFC 6184 section 5.1):
   `jitter.py`, as for 8.
2. Its bandwidth estimate starts at what a sender happens to send and grows by 8 % a second. Chrome obeys it and shrinks
   the camera's picture. Here it is a budget that real loss lowers.
3. It asks for a lost packet once and, when that or its answer is lost as well, not again before the next loss: a
   picture that stands still. Here it asks until the packet comes.
4. Its DTLS offers ECDSA suites only; GStreamer and others bring RSA certificates.
5. Its encoders: `encoders.py`; its decoders, which make room for any size: `decoders.py`; its data channels, which keep
   whatever comes: `channels.py`.
6. It counts the time of what it receives from 0 and adds a random origin to what it sends. Here a picture leaves with
   the RTP timestamp it came with, so that a client finds the frame a mask belongs to.
7. It measures intervals by the time of day. When that jumps by nine days or more, as on a box without a battery that
   hears of the time late, the jitter no longer fits its report, reports cease, and no connection can be closed.
8. It waits for a lost packet until 512 later ones have come. A cut of some seconds loses more than its sender
   remembers, and the picture stands still for as long again. Here they are given up after a second.
9. It has a thread for every camera that decodes and hands each picture to the event loop, which hands it to the
   session's thread. Here the session's thread decodes.
10. Its ICE takes every packet for STUN first and waits for the exception. The first byte tells (RFC 7983 section 7).
11. Its ICE, closed in the moment in which it comes up, asks for its peer's consent for ever.

Each is small, written against the versions in TESTED, and refused with any other; tests fail when upstream changes.
"""

import asyncio
import re
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import aiortc
import av
from aioice.ice import Connection, StunProtocol
from aiortc import rtcdtlstransport, rtcicetransport, rtcrtpreceiver, rtcrtpsender, rtcsctptransport
from aiortc.codecs.base import Encoder
from OpenSSL import SSL

from portrait.transports.webrtc.aiortc_patches.jitter_buffer import LiveJitterBuffer
from portrait.transports.webrtc.aiortc_patches.nack import Requests
from portrait.transports.webrtc.aiortc_patches.video_decoders import Undecoded, bounded_decoder
from portrait.transports.webrtc.aiortc_patches.video_encoders import Encoded, live_encoder

TESTED = ("1.16.0",)
"""Releases of aiortc whose internals are what the patches expect."""

CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA:"
    b"ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384"
)

START_KBPS = 1500
"""What the answer asks Chrome to begin with; it ramps up from 300 otherwise."""

BUDGET = 3_000_000
FLOOR = 300_000
"""Bits per second a sender is allowed at most, and at least whatever is lost."""

BITS_PER_PIXEL = 2.0
"""Bits per second and pixel that a sender is allowed besides the floor: together 0.9 Mbit/s at 640x480, 2.1 at
1280x720. More is hardly seen, and every packet costs the service some 0.2 ms."""

REPORT_SECONDS = 0.5
MUCH_LOSS, LITTLE_LOSS = 0.10, 0.02
"""Shares of packets lost above which the budget falls and below which it rises again (the loss-based controller of
draft-ietf-rmcat-gcc-02 section 6)."""

RISE = 1.08

STEADY = SimpleNamespace(time=time.monotonic)
"""In the place of the module `time` where only intervals are of interest."""


class Bandwidth:
    """The REMB a receiver sends: a budget, lowered while packets are lost. Takes the place of aiortc's estimator."""

    def __init__(self, receiver: Any) -> None:
        self._receiver = receiver
        self._reported = self._expected = self._received = 0
        self._last = time.monotonic()
        self._most = BUDGET
        self.budget = BUDGET

    def allow(self, pixels: int) -> None:
        """Bound the budget by the size of the pictures that come."""
        most = min(BUDGET, FLOOR + int(BITS_PER_PIXEL * pixels))
        if most != self._most:
            self._most = self.budget = most

    def add(
        self, abs_send_time: int, arrival_time_ms: int, payload_size: int, ssrc: int
    ) -> tuple[int, list[int]] | None:
        """(bits per second, the senders) when a report is due, else None: aiortc calls this for every packet."""
        now = time.monotonic()
        if now - self._last < REPORT_SECONDS:
            return None
        self._last = now
        streams = self._receiver._RTCRtpReceiver__remote_streams
        self.note(
            sum(stream.packets_expected for stream in streams.values()),
            sum(stream.packets_received for stream in streams.values()),
        )
        return self.budget, list(streams) or [ssrc]

    def note(self, expected: int, received: int) -> None:
        """Move the budget by what was lost since the last time; both count packets since the beginning."""
        due, came = expected - self._expected, received - self._received
        self._expected, self._received = expected, received
        if due <= 0:
            return
        # A retransmission makes up for a loss and counts as received: what is lost for good may be less than none.
        lost = max(0.0, 1.0 - came / due)
        if lost > MUCH_LOSS:
            self.budget = max(FLOOR, int(self.budget * (1.0 - 0.5 * lost)))
        elif lost < LITTLE_LOSS:
            self.budget = min(self._most, int(self.budget * RISE))


LAST_STUN = 3
"""First bytes up to this one are STUN's."""

RTP_CLOCK = 1 << 32
"""Where RTP timestamps begin anew (RFC 3550 section 5.1)."""


class KeptTime:
    """RTP timestamps as pts, without the jumps back to 0. Takes the place of aiortc's TimestampMapper."""

    def __init__(self) -> None:
        self._last = self._turns = 0

    def map(self, timestamp: int) -> int:
        """The time of a frame, in ticks of 1/90000 s; frames come in order."""
        self._turns += timestamp < self._last
        self._last = timestamp
        return timestamp + self._turns * RTP_CLOCK


class ClosableIce(Connection):
    """aioice's connection, which does nothing more once it is closed."""

    _left = False

    async def query_consent(self) -> None:
        """As stock, until it is closed; `connect` begins it, also after that."""
        if not self._left:
            await super().query_consent()

    async def close(self) -> None:
        """As stock, and of what has begun meanwhile as well."""
        self._left = True
        await super().close()
        if self._query_consent_task is not None:
            self._query_consent_task.cancel()


def rtp_time(pts: int) -> int:
    """The RTP timestamp a picture came with."""
    return pts % RTP_CLOCK


def leave_undecoded(receiver: Any, came: Callable[[], None], gone: Callable[[], None]) -> Undecoded:
    """Where a receiver's pictures wait from now on, before its first packet. `came`, `gone`: as of `Undecoded`."""
    buffer = receiver._RTCRtpReceiver__jitter_buffer = LiveJitterBuffer()
    undecoded = receiver._RTCRtpReceiver__decoder_queue = Undecoded(buffer.fail, came, gone)
    return undecoded


def steer(receiver: Any) -> Bandwidth:
    """Give a video receiver its own `Bandwidth`, which is returned, and `Requests`, before its first packet."""
    bandwidth = Bandwidth(receiver)
    receiver._RTCRtpReceiver__remote_bitrate_estimator = bandwidth
    receiver._RTCRtpReceiver__nack_generator = Requests()
    return bandwidth


class TrackEncoder:
    """A sender's encoder in the hands of who makes the pictures: encoded where they are made, they change threads once.

    aiortc would have every picture encoded by another thread of the loop's own.
    """

    def __init__(self) -> None:
        self._encoder: Encoder | None = None
        self._asked = self._answered = 0
        """Key frames. The event loop counts one up, the thread that encodes the other: none is lost between them."""

    def take_over(self, transceiver: Any) -> None:
        """Encode for this section's sender, whose codec is agreed upon. Its track must give what `encode` returns."""
        self._encoder = live_encoder(transceiver._codecs[0])
        transceiver.sender._RTCRtpSender__encoder = self._encoder
        transceiver.sender._send_keyframe = self._ask

    def encode(self, picture: av.VideoFrame) -> Encoded:
        """The picture for the wire. By one thread."""
        assert self._encoder is not None, "encode() before take_over()"
        asked = self._asked
        payloads, timestamp = self._encoder.encode(picture, asked != self._answered)
        self._answered = asked
        return Encoded(payloads, timestamp)

    def _ask(self) -> None:
        self._asked += 1


def start_high(answer: str) -> str:
    """An SDP answer that asks for START_KBPS from the first second, for every VP8 and H.264 payload type."""
    lines = answer.split("\r\n")
    wanted = f"x-google-start-bitrate={START_KBPS}"
    for payload in re.findall(r"^a=rtpmap:(\d+) (?:VP8|H264)/", answer, re.MULTILINE):
        prefix = f"a=fmtp:{payload} "
        for number, line in enumerate(lines):
            if line.startswith(prefix):
                lines[number] = f"{line};{wanted}"
                break
        else:
            place = next(i for i, line in enumerate(lines) if line.startswith(f"a=rtpmap:{payload} "))
            lines.insert(place + 1, prefix + wanted)
    return "\r\n".join(lines)


def install() -> None:
    """Change aiortc for the process. Idempotent.

    Raises:
        RuntimeError: another aiortc than the one this was written for.
    """
    if aiortc.__version__ not in TESTED:
        raise RuntimeError(f"aiortc is {aiortc.__version__}; it is made real-time for {' and '.join(TESTED)} only")
    rtcrtpsender.get_encoder = live_encoder  # type: ignore[attr-defined]  # not its public name
    rtcrtpreceiver.get_decoder = bounded_decoder  # type: ignore[attr-defined]
    rtcrtpreceiver.decoder_worker = _decode  # type: ignore[assignment]
    rtcrtpsender.uint32_add = _without_origin  # type: ignore[attr-defined, assignment]
    for module in (rtcrtpreceiver, rtcrtpsender, rtcsctptransport):
        module.time = STEADY  # type: ignore[attr-defined]
    rtcrtpreceiver.TimestampMapper = KeptTime  # type: ignore[assignment, misc]
    StunProtocol.datagram_received = _datagram_received  # type: ignore[method-assign]
    rtcicetransport.Connection = ClosableIce  # type: ignore[attr-defined]
    rtcdtlstransport.RTCCertificate._create_ssl_context = _create_ssl_context  # type: ignore[method-assign]


def _datagram_received(self: StunProtocol, data: Any, addr: tuple[Any, ...]) -> None:
    """STUN as stock; DTLS and SRTP to who waits for them."""
    if data and data[0] > LAST_STUN:
        self.receiver.data_received(data, self.local_candidate.component)
    else:
        _stock_datagram_received(self, data, addr)


def _decode(loop: asyncio.AbstractEventLoop, waiting: Any, *others: Any) -> None:
    """The whole life of a receiver's thread: as stock, or over at once where a session decodes."""
    if not isinstance(waiting, Undecoded):
        _stock_decode(loop, waiting, *others)


def _without_origin(origin: int, pts: int) -> int:
    """In the place of `uint32_add`, which a sender uses for this alone."""
    return rtp_time(pts)


_stock_datagram_received = StunProtocol.datagram_received
_stock_decode = rtcrtpreceiver.decoder_worker
_stock_create_ssl_context = rtcdtlstransport.RTCCertificate._create_ssl_context


def _create_ssl_context(self: rtcdtlstransport.RTCCertificate, srtp_profiles: list[Any]) -> SSL.Context:
    context = _stock_create_ssl_context(self, srtp_profiles)
    context.set_cipher_list(CIPHERS)
    return context
