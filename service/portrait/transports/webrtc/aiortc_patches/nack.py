"""Which lost packets are asked for, how often, and for how long."""

import time
from collections.abc import Callable

from aiortc.rtp import RTP_HISTORY_SIZE, RtpPacket
from aiortc.utils import uint16_add, uint16_gt

ASK_SECONDS = 0.08
"""A lost packet is asked for again after so long: more than a round trip on a LAN, less than a picture that is seen to
stand still."""

GIVE_UP_SECONDS = 1.0
"""A lost packet that has not come by then, asked for again and again, will not; a key frame is asked for instead."""


class Requests:
    """Which packets a receiver asks for (RFC 4585 section 6.2.1). Takes the place of aiortc's NackGenerator."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._newest: int | None = None
        self._asked: dict[int, float] = {}
        """Packets that have not come, and when each was asked for."""
        self._missed: dict[int, float] = {}
        """And when each was found missing."""
        self.missing: set[int] = set()
        """What to ask for now; aiortc reads it when `add` says so."""

    def add(self, packet: RtpPacket) -> bool:
        """Take note of a packet; whether something is to be asked for."""
        number, now = packet.sequence_number, self._clock()
        if self._newest is None:
            self._newest = number
        elif uint16_gt(number, self._newest):
            while (following := uint16_add(self._newest, 1)) != number:
                self._asked[following], self._missed[following] = -ASK_SECONDS, now
                self._newest = following
            self._newest = number
            # What the sender has forgotten it cannot send again.
            oldest = uint16_add(number, -RTP_HISTORY_SIZE)
            self._missed = {
                lost: missed
                for lost, missed in self._missed.items()
                if lost in self._asked and uint16_gt(lost, oldest) and now - missed < GIVE_UP_SECONDS
            }
            self._asked = {lost: self._asked[lost] for lost in self._missed}
        else:
            self._asked.pop(number, None)
        self.missing = {lost for lost, asked in self._asked.items() if now - asked >= ASK_SECONDS}
        self._asked.update(dict.fromkeys(self.missing, now))
        return bool(self.missing)
