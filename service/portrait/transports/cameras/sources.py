"""Sources: what a camera's life needs of a connection, whatever it speaks; and the one that FFmpeg reads."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from portrait.sessions.broadcasts import Broadcast
from portrait.transports.cameras.addresses import Address
from portrait.transports.cameras.codec import PacketCodec
from portrait.transports.cameras.packets import Backlog, MediaClock, Packet, PacketReader, Video


@dataclass(frozen=True, slots=True)
class Found:
    """The video of a camera that has answered."""

    codec: str
    width: int = 0
    """0: not known before the first picture."""
    height: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """The newest picture and all it builds on."""

    picture: Any
    """What the source's codec decodes."""
    arrived: float
    """When the newest arrived, on the monotonic clock."""
    replaced: int
    """Pictures that are decoded, but not shown, since a newer one has come."""
    lost: int
    """Pictures that were dropped undecoded since the last time."""


class Source(Protocol):
    """One connection to a camera. It is opened by its construction, and connects in the background."""

    lost: "asyncio.Future[None]"
    """Raises CameraFailed once the connection has failed or ended."""

    async def found(self) -> Found:
        """Wait for its video.

        Raises:
            CameraFailed: it cannot be reached or read.
        """

    def open_codec(self, max_pixels: int) -> Any:
        """The codec of a session for its pictures; to be closed. Once, after `found`."""

    async def take(self) -> Taken:
        """Wait for the newest picture. Cancelling is safe."""

    async def close(self) -> None:
        """End the connection. Idempotent."""


class FfmpegSource:
    """A connection that FFmpeg reads."""

    def __init__(self, name: str, address: Address, times: MediaClock, broadcast: Broadcast) -> None:
        self._broadcast, self._backlog = broadcast, Backlog()
        self._reader = PacketReader(name, address, times, self._deliver, broadcast.sound)
        self._video: Video | None = None
        self.lost = self._reader.lost

    async def found(self) -> Found:
        """Wait for its video."""
        self._video = video = await self._reader.opened
        return Found(video.codec, video.width, video.height)

    def open_codec(self, max_pixels: int) -> PacketCodec:
        """The codec of a session for its packets."""
        assert self._video is not None, "open_codec() before found()"
        return PacketCodec(self._video, max_pixels, lambda: self._broadcast.wanted)

    async def take(self) -> Taken:
        """Wait for a packet, and take all there are."""
        packets = await self._backlog.take()
        return Taken(packets, packets.arrived, len(packets.packets) - 1, self._backlog.take_lost())

    async def close(self) -> None:
        """End the connection."""
        await self._reader.close()

    def _deliver(self, packet: Packet) -> None:
        self._backlog.put(packet, watched=self._broadcast.watched.is_set())


OpenSource = Callable[[str, Address, MediaClock, Broadcast], Source]
"""Begins a connection: the camera's name and address, the clock of its times, and where its results go."""
