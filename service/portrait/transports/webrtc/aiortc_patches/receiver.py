"""A live camera's receiver, from the socket to the backlog: packets put in order, lost ones asked for again.

aiortc lets every datagram wait for a task, which awaits five coroutines for it and parses what is not read here. A
packet of a known source goes through `CameraPackets` instead, at once when it is read. The first one of a source,
retransmissions, RTCP and DTLS go aiortc's way.

Both ways meet the same parts, which replace those of aiortc's RTCRtpReceiver: `NewestSources` its statistics,
`Bandwidth` its estimator, `LostPackets` its NACK generator, `depayload` its parser, `LiveJitterBuffer` its jitter
buffer, and `Backlog` (in backlog.py, beside this package) its queue to the thread that decodes. `receive_undecoded`
installs them.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from struct import unpack_from
from typing import Any

import pylibsrtp
from aiortc.codecs import depayload as stock_depayload
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.rtcdtlstransport import State
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    RTP_HISTORY_SIZE,
    RtcpPsfbPacket,
    RtcpRtpfbPacket,
    RtpPacket,
    pack_remb_fci,
)
from aiortc.utils import uint16_add, uint16_gt

from portrait.transports.webrtc.aiortc_patches.sender import RTP_CLOCK, send_together
from portrait.transports.webrtc.backlog import Backlog
from portrait.transports.webrtc.keyframes import is_keyframe

MOST_BITRATE = 3_000_000
LEAST_BITRATE = 300_000
"""Bits per second a sender is allowed at most, and at least whatever is lost."""

BITS_PER_PIXEL = 2.0
"""Bits per second and pixel that a sender is allowed besides LEAST_BITRATE: together 0.9 Mbit/s at 640x480, 2.1 at
1280x720. More is hardly visible, and every packet costs the service some 0.2 ms."""

REPORT_SECONDS = 0.5
MUCH_LOSS, LITTLE_LOSS = 0.10, 0.02
"""Shares of packets lost above which the budget falls and below which it rises again (the loss-based controller of
draft-ietf-rmcat-gcc-02 section 6)."""

RISE = 1.08

CAPACITY = 512
"""Packets, a power of 2: more than arrive within GIVE_UP_SECONDS at 3 Mbit/s."""

ASK_SECONDS = 0.08
"""A lost packet is asked for again at this interval: more than a round trip on a LAN, and too short for a viewer to
notice that the picture stands still."""

REORDER_SECONDS = 0.1
"""Without NACK nothing lost comes again. A packet that is this late was lost, and did not merely take another route."""

UNKNOWN_SECONDS = 0.5
"""How long a lost packet is awaited while no retransmission has come yet that would tell the round trip."""

GIVE_UP_SECONDS = 1.0
"""The longest that a lost packet is awaited."""

SHORTEST_WAIT = 0.2
"""The shortest that a lost packet is awaited with NACK: two requests and their answers. After this time, or after half
of the wait where that is longer, a keyframe is asked for as well, and the wait ends when it has come."""

KEYFRAME_SECONDS = 0.5
"""Keyframes are asked for at most this often."""

MOST_REPORTED = 31
"""Sources of one receiver report: its count has five bits (RFC 3550 section 6.4.2)."""


HEADER = 12
"""Bytes of an RTP header without lists and extensions (RFC 3550 section 5.1)."""

EXTENSION = 4
"""Bytes before the words of a header extension (ibid. section 5.3.1)."""


class CameraPacket:
    """What statistics and a jitter buffer want to know of a packet."""

    __slots__ = ("_data", "marker", "payload", "sequence_number", "timestamp")

    def __init__(self, sequence_number: int, timestamp: int, marker: int, payload: bytes) -> None:
        self.sequence_number, self.timestamp, self.marker, self.payload = sequence_number, timestamp, marker, payload
        self._data = b""
        """The payload without its descriptor, under aiortc's name."""


def read_packet(data: bytes) -> CameraPacket | None:
    """The packet of at least a header's bytes; None where it is cut short. Extensions are skipped."""
    bits, kind, number, timestamp = unpack_from("!BBHL", data)
    begin = HEADER + 4 * (bits & 0x0F)
    if bits & 0x10:
        begin += EXTENSION + 4 * int.from_bytes(data[begin + 2 : begin + EXTENSION], "big")
    padding = data[-1] if bits & 0x20 else 0
    if begin + padding > len(data) or (bits & 0x20 and not padding):
        return None
    return CameraPacket(number, timestamp, kind >> 7, data[begin : len(data) - padding])


@dataclass(frozen=True, slots=True)
class _Way:
    """Where packets of a source and a payload type go."""

    receiver: Any
    ssrc: int
    payload_type: int
    codec: RTCRtpCodecParameters


class CameraPackets:
    """The packets of one DTLS transport's cameras. An ICE connection offers it every datagram first."""

    def __init__(self, transport: Any) -> None:
        self._transport, self._session = transport, transport._rx_srtp
        self._ways: dict[bytes, _Way] = {}

    def add(self, source: bytes, receiver: Any, payload_type: int) -> None:
        """Take the packets of this source and payload type from now on, if its pictures are kept undecoded."""
        codec = receiver._RTCRtpReceiver__codecs.get(payload_type)
        is_camera = isinstance(receiver._RTCRtpReceiver__jitter_buffer, LiveJitterBuffer)
        if is_camera and codec is not None and codec.name.lower() != "rtx":
            self._ways[source] = _Way(receiver, int.from_bytes(source, "big"), payload_type, codec)

    def take(self, data: bytes) -> bool:
        """Take a datagram if it is a packet of a known source. Returns whether it is."""
        way, transport = self._ways.get(data[8:12]), self._transport
        if way is None or data[0] >> 6 != 2 or data[1] & 0x7F != way.payload_type:
            return False
        statistics = way.receiver._RTCRtpReceiver__remote_streams.get(way.ssrc)
        if statistics is None or transport._state is not State.CONNECTED:
            return False
        transport._RTCDtlsTransport__rx_bytes += len(data)
        transport._RTCDtlsTransport__rx_packets += 1
        with suppress(pylibsrtp.Error):  # not its sender's, or one that has come already
            packet = read_packet(self._session.unprotect(data))
            if packet is not None and way.receiver._enabled:
                statistics.add(packet)
                _handle(way, packet)
        return True


def _handle(way: _Way, packet: CameraPacket) -> None:
    """Ask for what is missing, put the packet in order, and hand on the picture that it completes."""
    receiver = way.receiver
    remb, lost = receiver._RTCRtpReceiver__remote_bitrate_estimator, receiver._RTCRtpReceiver__nack_generator
    if remb is not None and (due := remb.add(0, 0, 0, way.ssrc)) is not None:
        _report(receiver, RtcpPsfbPacket(RTCP_PSFB_APP, _own(receiver), 0, pack_remb_fci(*due)))
    if lost is not None and lost.add(packet):
        _report(receiver, RtcpRtpfbPacket(RTCP_RTPFB_NACK, _own(receiver), way.ssrc, sorted(lost.missing)))
    if packet.payload:
        packet._data = depayload(way.codec, packet.payload)
    wants_keyframe, picture = receiver._RTCRtpReceiver__jitter_buffer.add(packet)
    if wants_keyframe:
        _report(receiver, RtcpPsfbPacket(RTCP_PSFB_PLI, _own(receiver), way.ssrc))
    if picture is not None:
        picture.timestamp = receiver._RTCRtpReceiver__timestamp_mapper.map(picture.timestamp)
        receiver._RTCRtpReceiver__decoder_queue.put((way.codec, picture))


def _own(receiver: Any) -> int:
    """The source that a receiver's reports are from."""
    ssrc: int = receiver._RTCRtpReceiver__rtcp_ssrc
    return ssrc


def _report(receiver: Any, packet: Any) -> None:
    with suppress(ConnectionError):
        send_together(receiver.transport, [bytes(packet)])


class NewestSources(dict[int, Any]):
    """Statistics by source, of as many as a receiver report can list. Replaces a receiver's own, of all there were.

    aiortc writes reports of more than MOST_REPORTED wrongly, and after the first of more than 255 none any more.
    """

    def __setitem__(self, source: int, statistics: Any) -> None:
        """Add a source in place of the one that came first."""
        super().__setitem__(source, statistics)
        while len(self) > MOST_REPORTED:
            del self[next(iter(self))]


class Bandwidth:
    """The REMB a receiver sends: a budget, lowered while packets are lost. Replaces aiortc's estimator."""

    def __init__(self, receiver: Any) -> None:
        # Not the receiver itself, which owns this object: a cycle would keep an ended session's memory.
        self._remote_streams = receiver._RTCRtpReceiver__remote_streams
        self._expected = self._received = 0
        self._last = time.monotonic()
        self._most = MOST_BITRATE
        self.budget = MOST_BITRATE

    def allow(self, pixels: int) -> None:
        """Bound the budget by the size of the pictures that arrive."""
        most = min(MOST_BITRATE, LEAST_BITRATE + int(BITS_PER_PIXEL * pixels))
        if most != self._most:
            self._most = self.budget = most

    def add(
        self, abs_send_time: int, arrival_time_ms: int, payload_size: int, ssrc: int
    ) -> tuple[int, list[int]] | None:
        """(bits per second, SSRCs of the senders) when a report is due, else None; called for each packet."""
        now = time.monotonic()
        if now - self._last < REPORT_SECONDS:
            return None
        self._last = now
        streams = self._remote_streams
        self.update(
            sum(stream.packets_expected for stream in streams.values()),
            sum(stream.packets_received for stream in streams.values()),
        )
        return self.budget, list(streams) or [ssrc]

    def update(self, expected: int, received: int) -> None:
        """Move the budget by what was lost since the last call; both count packets since the beginning."""
        due, came = expected - self._expected, received - self._received
        self._expected, self._received = expected, received
        if due <= 0:
            return
        # A retransmission counts as received and makes up for a loss: more may have been received than was due.
        lost = max(0.0, 1.0 - came / due)
        if lost > MUCH_LOSS:
            self.budget = max(LEAST_BITRATE, int(self.budget * (1.0 - 0.5 * lost)))
        elif lost < LITTLE_LOSS:
            self.budget = min(self._most, int(self.budget * RISE))


class LostPackets:
    """Which packets a receiver asks for again (RFC 4585 section 6.2.1). Replaces aiortc's NackGenerator.

    The work for a packet is bounded by the sender's history of RTP_HISTORY_SIZE packets, however far sequence numbers
    jump.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._newest: int | None = None
        self._asked: dict[int, float] = {}
        """Missing packets, and when each was last asked for."""
        self._missed: dict[int, float] = {}
        """Missing packets, and when each was found missing."""
        self._answer_seconds: float | None = None
        """How long retransmissions take, smoothed."""
        self.missing: set[int] = set()
        """What to ask for now; aiortc reads it when `add` returns true."""

    @property
    def patience(self) -> float:
        """Seconds after which a lost packet is not awaited any longer: four times what retransmissions take."""
        if self._answer_seconds is None:
            return UNKNOWN_SECONDS
        return min(GIVE_UP_SECONDS, max(SHORTEST_WAIT, 4 * self._answer_seconds))

    def add(self, packet: RtpPacket) -> bool:
        """Register a packet. Returns whether there is something to ask for."""
        number, now = packet.sequence_number, self._clock()
        if self._newest is None:
            self._newest = number
        elif uint16_gt(number, self._newest):
            self._register_gap(number, now)
        elif number in self._asked:
            del self._asked[number]
            self._register_answer(now - self._missed.pop(number))
        if not self._asked:
            self.missing = set()
            return False
        self.missing = {lost for lost, asked in self._asked.items() if now - asked >= ASK_SECONDS}
        self._asked.update(dict.fromkeys(self.missing, now))
        return bool(self.missing)

    def _register_gap(self, number: int, now: float) -> None:
        """Note what is missing before `number`, and forget what its sender has forgotten."""
        assert self._newest is not None
        oldest = uint16_add(number, -RTP_HISTORY_SIZE)
        following = uint16_add(self._newest, 1)
        if uint16_gt(oldest, self._newest):
            following = uint16_add(oldest, 1)
        while following != number:
            self._asked[following], self._missed[following] = -ASK_SECONDS, now
            following = uint16_add(following, 1)
        self._newest = number
        self._missed = {
            lost: missed
            for lost, missed in self._missed.items()
            if uint16_gt(lost, oldest) and now - missed < self.patience
        }
        self._asked = {lost: self._asked[lost] for lost in self._missed}

    def _register_answer(self, seconds: float) -> None:
        before = seconds if self._answer_seconds is None else self._answer_seconds
        self._answer_seconds = before + 0.2 * (seconds - before)


class LiveJitterBuffer(JitterBuffer):
    """Puts packets in order and hands each picture over with its last packet. Replaces aiortc's.

    A packet without payload (padding of libwebrtc's bandwidth probes, a bare payload descriptor, a retransmission of
    one of these) only moves the sequence number on: it neither ends a picture nor is one. When something has been
    missing for `patience()` seconds, the pictures it belongs to are dropped. A keyframe is asked for earlier, if the
    client agreed to be asked; once it is whole, what lies before it is dropped.
    """

    def __init__(
        self,
        patience: Callable[[], float] = lambda: REORDER_SECONDS,
        asks_keyframes: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(capacity=CAPACITY, is_video=True)
        self._patience, self._asks_keyframes, self._clock = patience, asks_keyframes, clock
        self._stuck_since: float | None = None
        self._asked_early = False
        """Whether a keyframe has been asked for while what is missing is still awaited."""
        self._is_headless = False
        """Whether the next picture may lack its first packets."""
        self._newest: RtpPacket | None = None
        self._wants_keyframe = threading.Event()
        self._asked_at = -KEYFRAME_SECONDS

    def want_keyframe(self) -> None:
        """Ask for a keyframe with the next packet that arrives. By any thread."""
        self._wants_keyframe.set()

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Take a packet. Returns whether to ask for a keyframe now, and a picture when one is whole."""
        earlier = self._packets[packet.sequence_number % self._capacity]
        if earlier is not None and earlier.sequence_number == packet.sequence_number:
            return self._is_keyframe_due(), None  # a duplicate, which must not replace a picture's bytes by padding
        origin = self._origin
        lost, frame = super().add(packet)
        if lost:
            self.want_keyframe()
        # After a jump far back aiortc empties the buffer and starts anew from this packet.
        assert self._origin is not None  # set by the first packet
        starts_anew = origin is not None and uint16_gt(origin, self._origin)
        if self._newest is None or starts_anew or uint16_gt(packet.sequence_number, self._newest.sequence_number):
            self._newest = packet
        frame = frame or self._give_up_late()
        return self._is_keyframe_due(), frame

    def _give_up_late(self) -> JitterFrame | None:
        """Drop what has been incomplete for too long. Returns the first complete picture behind it."""
        assert self._origin is not None
        assert self._newest is not None
        # Packets of a picture that is merely not complete yet follow each other without a gap.
        waiting = uint16_add(self._newest.sequence_number, -self._origin) + 1
        if waiting > self._capacity or self._first_gap(waiting) is None:
            self._stuck_since, self._asked_early = None, False
            return None
        now = self._clock()
        if self._stuck_since is None:
            self._stuck_since = now
        waited, patience = now - self._stuck_since, self._patience()
        if waited < patience:
            if waited < max(SHORTEST_WAIT, patience / 2):
                return None
            if not self._asked_early:
                self._asked_early = True
                self.want_keyframe()
            keyframe = self._whole_keyframe(waiting)
            if keyframe is None:
                return None
            self.remove(keyframe)
            self._stuck_since, self._asked_early = None, False
            return self._remove_frame(keyframe)
        if not self._asked_early:
            self.want_keyframe()
        self._stuck_since, self._asked_early = None, False
        gap = self._first_gap(waiting)
        assert gap is not None
        self.remove(gap)
        for _ in range(waiting - gap - 1):  # to the newest packet at most
            if self._packets[self._origin % self._capacity] is not None:
                break
            self._origin = uint16_add(self._origin, 1)
        self._is_headless = True
        return self._remove_frame(self._origin)

    def _first_gap(self, count: int) -> int | None:
        """How many packets from the origin on are here without a gap; None when all `count` are."""
        for number in range(count):
            if self._packets[(self._origin + number) % self._capacity] is None:  # type: ignore[operator]
                return number
        return None

    def _whole_keyframe(self, count: int) -> int | None:
        """How many packets lie before the first keyframe that is whole; None where none is.

        The packet before it must have come: slices of H.264 are alike, so the first one here may be a later one.
        """
        assert self._origin is not None
        packets: list[Any] = [self._packets[(self._origin + number) % self._capacity] for number in range(count)]
        for number, (before, packet) in enumerate(pairwise(packets), 1):
            if before is None or packet is None or before.timestamp == packet.timestamp:
                continue
            if not packet._data or not is_keyframe(packet._data):
                continue
            for part in packets[number:]:
                if part is None or part.timestamp != packet.timestamp:
                    break
                if part.marker:
                    return number
        return None

    def _remove_frame(self, sequence_number: int) -> JitterFrame | None:
        """The first picture that is whole: all packets up to its marker, or up to the next picture, have come."""
        while (found := self._next_picture()) is not None:
            count, frame = found
            self.remove(count)
            if not frame.data:
                continue
            is_headless, self._is_headless = self._is_headless, False
            if not is_headless or is_keyframe(frame.data):
                return frame
        return None

    def _next_picture(self) -> tuple[int, JitterFrame] | None:
        """How many packets make up the first picture, those without payload before it included, and the picture."""
        assert self._origin is not None
        parts: list[bytes] = []
        timestamp: int | None = None
        for count in range(self._capacity):
            packet: Any = self._packets[(self._origin + count) % self._capacity]
            if packet is None:
                return None
            data = packet._data  # aiortc adds it: the payload without its descriptor
            if data:
                if timestamp is not None and packet.timestamp != timestamp:
                    return count, JitterFrame(b"".join(parts), timestamp)
                timestamp = packet.timestamp
                parts.append(data)
            if packet.marker and packet.timestamp == timestamp:
                return count + 1, JitterFrame(b"".join(parts), packet.timestamp)
            if timestamp is None:
                # Nothing but padding so far: no reason to keep it.
                return count + 1, JitterFrame(b"", packet.timestamp)
        return None

    def _is_keyframe_due(self) -> bool:
        if not self._wants_keyframe.is_set():
            return False
        now = self._clock()
        if not self._asks_keyframes or now - self._asked_at < KEYFRAME_SECONDS:
            return False
        self._wants_keyframe.clear()
        self._asked_at = now
        return True


class UnwrappedTime:
    """RTP timestamps as times that never jump back to 0. Replaces aiortc's TimestampMapper."""

    def __init__(self) -> None:
        self._last: int | None = None

    def map(self, timestamp: int) -> int:
        """The time of a picture in ticks of 1/90000 s; modulo RTP_CLOCK it is the timestamp."""
        if self._last is None:
            self._last = timestamp
        # Forward or back, whichever is nearer: pictures with B-frames do not arrive in the order of their times.
        self._last += (timestamp - self._last + RTP_CLOCK // 2) % RTP_CLOCK - RTP_CLOCK // 2
        return self._last


def rtp_time(pts: int) -> int:
    """The RTP timestamp of a picture with this time."""
    return pts % RTP_CLOCK


def depayload(codec: RTCRtpCodecParameters, payload: bytes) -> bytes:
    """What a payload holds of its picture; nothing where it cannot be parsed.

    aiortc drops a packet that cannot be parsed, and then waits for it as for one that was lost.
    """
    try:
        return stock_depayload(codec, payload)
    except ValueError:
        return b""


def receive_undecoded(transceiver: Any, ended: Callable[[], None]) -> tuple[Backlog, Bandwidth]:
    """Make a video section's receiver keep its pictures undecoded, before its first packet arrives.

    Feedback (NACK, PLI, REMB) is sent only where the client agreed to it (RFC 4585 section 4.2). `ended` is called when
    no more pictures will come.
    """
    receiver = transceiver.receiver
    agreed = {(each.type, each.parameter) for codec in transceiver._codecs for each in codec.rtcpFeedback}
    lost = LostPackets() if ("nack", None) in agreed else None
    buffer = LiveJitterBuffer(
        (lambda: lost.patience) if lost else (lambda: REORDER_SECONDS), asks_keyframes=("nack", "pli") in agreed
    )
    receiver._RTCRtpReceiver__remote_streams = NewestSources()
    backlog, bandwidth = Backlog(buffer.want_keyframe, ended), Bandwidth(receiver)
    receiver._RTCRtpReceiver__jitter_buffer = buffer
    receiver._RTCRtpReceiver__nack_generator = lost
    receiver._RTCRtpReceiver__decoder_queue = backlog
    receiver._RTCRtpReceiver__remote_bitrate_estimator = bandwidth if ("goog-remb", None) in agreed else None
    return backlog, bandwidth
