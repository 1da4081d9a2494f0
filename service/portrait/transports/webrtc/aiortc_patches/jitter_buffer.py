"""The jitter buffer of a live camera."""

import threading
import time
from typing import Any

from aiortc.jitterbuffer import JitterBuffer, JitterFrame

from portrait.transports.webrtc.aiortc_patches.nack import GIVE_UP_SECONDS

CAPACITY = 512
"""Packets, a power of 2: more than come in GIVE_UP_SECONDS of 3 Mbit/s."""


class LiveJitterBuffer(JitterBuffer):
    """aiortc's, which hands a picture over with its last packet, and does not wait for what will not come."""

    def __init__(self) -> None:
        super().__init__(capacity=CAPACITY, is_video=True)
        self._stuck_since: float | None = None
        self._failed = threading.Event()

    def fail(self) -> None:
        """Have a key frame asked for with the next packet: a picture could not be decoded. By any thread."""
        self._failed.set()

    def add(self, packet: Any) -> tuple[bool, JitterFrame | None]:
        """(a key frame is wanted, a picture) for a packet: as stock, or a new beginning.

        That is when something before it has been missing for GIVE_UP_SECONDS.
        """
        wanted, frame = super().add(packet)
        if self._failed.is_set():
            self._failed.clear()
            wanted = True
        assert self._origin is not None  # since the first packet
        first = self._packets[self._origin % self._capacity]
        if frame is not None or (first is not None and first.timestamp == packet.timestamp):
            self._stuck_since = None
            return wanted, frame
        now = time.monotonic()
        if self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since >= GIVE_UP_SECONDS:
            self._stuck_since = None
            self.remove(self._capacity)
            self._origin = packet.sequence_number
            _, frame = super().add(packet)
            wanted = True
        return wanted, frame

    def _remove_frame(self, sequence_number: int) -> JitterFrame | None:
        """The first picture that is whole: as stock, or all its packets are here and the last one bears the marker."""
        frame = super()._remove_frame(sequence_number)
        if frame is not None:
            return frame
        assert self._origin is not None
        packets: list[Any] = []  # RtpPacket, with the payload aiortc adds to it
        for count in range(self._capacity):
            packet = self._packets[(self._origin + count) % self._capacity]
            if packet is None or (packets and packet.timestamp != packets[0].timestamp):
                return None
            packets.append(packet)
            if packet.marker:
                self.remove(len(packets))
                return JitterFrame(b"".join(p._data or b"" for p in packets), packet.timestamp)
        return None
