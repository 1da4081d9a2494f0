"""The bandwidth a sender is told to use, in REMB reports and in the SDP answer."""

import re
import time
from typing import Any

START_KBPS = 1500
"""What the answer asks Chrome to begin with; it would ramp up from 300."""

BUDGET = 3_000_000
FLOOR = 300_000
"""Bits per second a sender is allowed at most, and at least whatever is lost."""

BITS_PER_PIXEL = 2.0
"""Bits per second and pixel that a sender is allowed besides the floor: together 0.9 Mbit/s at 640x480, 2.1 at
1280x720. More is hardly visible, and every packet costs the service some 0.2 ms."""

REPORT_SECONDS = 0.5
MUCH_LOSS, LITTLE_LOSS = 0.10, 0.02
"""Shares of packets lost above which the budget falls and below which it rises again (the loss-based controller of
draft-ietf-rmcat-gcc-02 section 6)."""

RISE = 1.08


class Bandwidth:
    """The REMB a receiver sends: a budget, lowered while packets are lost. Replaces aiortc's estimator."""

    def __init__(self, receiver: Any) -> None:
        # Not the receiver itself, which owns this object: a cycle would keep an ended session's memory.
        self._remote_streams = receiver._RTCRtpReceiver__remote_streams
        self._expected = self._received = 0
        self._last = time.monotonic()
        self._most = BUDGET
        self.budget = BUDGET

    def allow(self, pixels: int) -> None:
        """Bound the budget by the size of the pictures that arrive."""
        most = min(BUDGET, FLOOR + int(BITS_PER_PIXEL * pixels))
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
            self.budget = max(FLOOR, int(self.budget * (1.0 - 0.5 * lost)))
        elif lost < LITTLE_LOSS:
            self.budget = min(self._most, int(self.budget * RISE))


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
