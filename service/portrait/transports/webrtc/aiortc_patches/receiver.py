"""A camera's receiver: its packets, its pictures, their times, and the feedback its client agreed to."""

from collections.abc import Callable
from typing import Any

from aiortc.codecs import depayload as stock_depayload
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from portrait.transports.webrtc.aiortc_patches.bandwidth import Bandwidth
from portrait.transports.webrtc.aiortc_patches.jitter_buffer import REORDER_SECONDS, LiveJitterBuffer, LostPackets
from portrait.transports.webrtc.backlog import Backlog

RTP_CLOCK = 1 << 32
"""RTP timestamps are modulo this (RFC 3550 section 5.1)."""


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
    backlog, bandwidth = Backlog(buffer.want_keyframe, ended), Bandwidth(receiver)
    receiver._RTCRtpReceiver__jitter_buffer = buffer
    receiver._RTCRtpReceiver__nack_generator = lost
    receiver._RTCRtpReceiver__decoder_queue = backlog
    receiver._RTCRtpReceiver__remote_bitrate_estimator = bandwidth if ("goog-remb", None) in agreed else None
    return backlog, bandwidth


def depayload(codec: RTCRtpCodecParameters, payload: bytes) -> bytes:
    """What a payload holds of its picture; nothing where it cannot be parsed.

    aiortc drops a packet that cannot be parsed, and then waits for it as for one that was lost.
    """
    try:
        return stock_depayload(codec, payload)
    except ValueError:
        return b""
