"""What a sender sends again when its receiver reports packets as lost, within bounds."""

import time
from typing import Any

from aiortc import RTCRtpSender
from aiortc.rtp import RTCP_RTPFB_NACK, RTP_HISTORY_SIZE, AnyRtcpPacket, RtcpRtpfbPacket

RESEND_SECONDS = 0.04
"""A packet is sent again at most this often. Receivers wait for a round trip before they ask once more."""


async def handle_rtcp_packet(self: RTCRtpSender, packet: AnyRtcpPacket) -> None:
    """As aiortc, but each packet is sent again once, however often it is asked for. Replaces that of RTCRtpSender.

    A request of 4 KB can name packets 17,000 times, which would hold the event loop up for a second.
    """
    if isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
        packet.lost = _due(self, packet.lost)
    await _stock_handle_rtcp_packet(self, packet)


def _due(sender: Any, lost: list[int]) -> list[int]:
    """Which of the packets to send again now: those that are still kept, and have not just been sent again."""
    now, history = time.monotonic(), sender._RTCRtpSender__rtp_history
    resent: dict[int, tuple[int, float]] = vars(sender).setdefault("_resent", {})
    due = []
    for number in set(lost):
        place = number % RTP_HISTORY_SIZE
        kept, (before, at) = history.get(place), resent.get(place, (-1, 0.0))
        if kept is not None and kept.sequence_number == number and (before != number or now - at >= RESEND_SECONDS):
            resent[place] = number, now
            due.append(number)
    return due


_stock_handle_rtcp_packet = RTCRtpSender._handle_rtcp_packet
