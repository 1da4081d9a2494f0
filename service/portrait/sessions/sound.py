"""Sound: what a stream's publisher sends beside its pictures, passed on packet by packet as it came."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from portrait.sessions.newest_slot import Closed

MOST_PACKETS = 50
"""Packets that wait for a viewer, a second of sound; past it the oldest are dropped."""

FRACTION = 1 << 32
"""NTP timestamps count in this part of a second (RFC 5905 section 6)."""

RTP_CLOCK = 1 << 32


@dataclass(frozen=True, slots=True)
class SoundPacket:
    """The payload of one packet, and its RTP timestamp."""

    payload: bytes
    timestamp: int


@dataclass(frozen=True, slots=True)
class SoundFormat:
    """What decodes a stream's sound; named as FFmpeg does."""

    codec: str
    rate: int
    """Samples per second."""
    layout: str
    extradata: bytes | None


@dataclass(frozen=True, slots=True)
class SenderClock:
    """A sender report's pair: when, by the publisher's clock, a moment of its media was (RFC 3550 section 6.4.1)."""

    ntp: int
    """64 bits, seconds and fractions."""
    rtp: int
    rate: int
    """RTP ticks per second."""

    def ntp_of(self, rtp: int) -> int:
        """The time of another moment of the same media."""
        ticks = (rtp - self.rtp + RTP_CLOCK // 2) % RTP_CLOCK - RTP_CLOCK // 2
        return (self.ntp + ticks * FRACTION // self.rate) % (1 << 64)


class Listener:
    """The packets that wait for one viewer. Used on one event loop."""

    def __init__(self) -> None:
        self._packets: deque[SoundPacket] = deque(maxlen=MOST_PACKETS)
        self._ready = asyncio.Event()
        self._closed = False

    def put(self, packet: SoundPacket) -> None:
        """Add a packet."""
        self._packets.append(packet)
        self._ready.set()

    async def get(self) -> SoundPacket:
        """Wait for a packet and take it. Cancelling loses none.

        Raises:
            Closed: after `close`.
        """
        while not self._packets:
            if self._closed:
                raise Closed
            self._ready.clear()
            await self._ready.wait()
        return self._packets.popleft()

    def take(self) -> list[SoundPacket]:
        """All packets that have come since the last time."""
        taken = list(self._packets)
        self._packets.clear()
        return taken

    def close(self) -> None:
        """Add nothing more, and raise Closed in `get` once all is taken. Idempotent."""
        self._closed = True
        self._ready.set()


class Sound:
    """The sound of one stream. It has none while `codec` is empty."""

    def __init__(self) -> None:
        self.codec = ""
        """MIME type, in lower case: audio/opus."""
        self.format: SoundFormat | None = None
        """What decodes it; None: nothing but a viewer does."""
        self.clocks: dict[str, SenderClock] = {}
        """By "audio" and "video": what keeps sound and picture together for viewers."""
        self._listeners: set[Listener] = set()

    def clock(self, kind: str) -> SenderClock | None:
        """The clock of a kind; None until both are known, since one alone would part them."""
        return self.clocks[kind] if len(self.clocks) == 2 else None

    def play(self, packet: SoundPacket) -> None:
        """Give every viewer a packet."""
        for listener in self._listeners:
            listener.put(packet)

    @contextmanager
    def listen(self) -> Iterator[Listener]:
        """The packets that come during the block."""
        listener = Listener()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            listener.close()
