"""A camera's receiver: where its pictures go, and which feedback its client has agreed to."""

from collections.abc import Callable
from typing import Any

from portrait.transports.webrtc.aiortc_patches.bandwidth import Bandwidth
from portrait.transports.webrtc.aiortc_patches.jitter_buffer import REORDER_SECONDS, LiveJitterBuffer, LostPackets
from portrait.transports.webrtc.backlog import Backlog


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
