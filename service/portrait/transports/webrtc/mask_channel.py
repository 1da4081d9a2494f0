"""The loopback without a video down: camera up, and masks down on a data channel."""

import struct
import zlib
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiortc import RTCDataChannel

from portrait.errors import BadOffer
from portrait.image.frame import Mask, Plane
from portrait.sessions.newest_slot import Closed
from portrait.sessions.session import Session
from portrait.transports.webrtc.backlog import CodedPictures
from portrait.transports.webrtc.connection import directions_left
from portrait.transports.webrtc.uplink import Uplink

VERSION = 1

HEADER = struct.Struct("!BxHHxxI")
"""Version, width, height, RTP timestamp; network byte order, twelve bytes."""

MAX_BYTES = 4096
"""Limit of a message. Larger ones cost SCTP in Python more than a video track does, and one lost packet loses all."""

LEVEL = 1
"""zlib's. A mask is long runs: level 9 saves a tenth of some 500 bytes and takes five times as long."""


@dataclass(frozen=True, slots=True, eq=False)
class MaskMessage:
    """A mask of one bit per pixel, and the time of its frame."""

    bits: Plane
    """(height, width) uint8, 1 where the person is."""
    rtp_timestamp: int
    """The frame's, as the camera's track carried it: 0 to 2**32 - 1."""

    @classmethod
    def of(cls, mask: Mask, rtp_timestamp: int) -> "MaskMessage":
        """The mask thresholded at one half."""
        return cls(np.right_shift(mask.values, 7, dtype=np.uint8), rtp_timestamp)

    def pack(self) -> bytes:
        """The bytes, at most MAX_BYTES: a mask too ragged for that loses every second row and column."""
        bits = self.bits
        while len(message := _pack(bits, self.rtp_timestamp)) > MAX_BYTES:
            bits = bits[::2, ::2]
        return message


def _pack(bits: Plane, rtp_timestamp: int) -> bytes:
    height, width = bits.shape
    header = HEADER.pack(VERSION, width, height, rtp_timestamp)
    return header + zlib.compress(np.packbits(bits, axis=1).tobytes(), LEVEL)


LABEL = "masks"
"""Label of the channel that the client opens, best with `{ordered: false, maxRetransmits: 0}`."""

FULL = 8192
"""Bytes waiting for the network from which on masks are dropped: two of the largest."""


class MaskSender(Uplink[bytes]):
    """A connection whose camera goes up and whose masks come down on a channel that the client opens."""

    def __init__(self, session: Session[CodedPictures, bytes], idle_seconds: float) -> None:
        super().__init__(session, idle_seconds)
        self._channel: RTCDataChannel | None = None

    def direct(self, transceivers: list[Any]) -> None:
        """Take the first video that is sent, and decline everything else."""
        for transceiver in transceivers:
            if transceiver.kind == "video" and self.backlog is None and "recv" in directions_left(transceiver):
                self.take_camera(transceiver)
                transceiver.direction = "recvonly"
            else:
                transceiver.direction = "inactive"
        if self.backlog is None:
            raise BadOffer("sdp", "got an offer that sends no video, expected one video section, sendonly")
        if self.connection.pc.sctp is None:
            raise BadOffer("sdp", f"got an offer without a data channel, expected one labelled {LABEL!r}")

    def take_channel(self, channel: RTCDataChannel) -> None:
        """Send masks on the channel that is labelled for them."""
        if channel.label == LABEL and self._channel is None:
            self._channel = channel
        else:
            super().take_channel(channel)

    async def run(self, *work: Coroutine[Any, Any, None]) -> None:
        """Carry frames up and masks down, until the session is ended or the client goes away."""
        await super().run(self._send(), *work)

    async def _send(self) -> None:
        """Take every newest frame through the session and its mask to the client, while the channel has space."""
        while True:
            try:
                coded = await self.newest()
            except Closed:
                return
            channel = self._channel
            if channel is None or channel.readyState != "open":
                await self.skip(coded, "no_channel")
            elif channel.bufferedAmount > FULL:
                await self.skip(coded, "slow_network")
            elif (message := await self.result(coded)) is not None and channel.readyState == "open":
                channel.send(message)
