"""Masks on a data channel: the layout of docs/protocol.md."""

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from portrait.image.frame import Plane
from portrait.image.mask import Mask

VERSION = 1

HEADER = struct.Struct("!BxHHxxI")
"""Version, width, height, RTP timestamp; network byte order, twelve bytes."""

MAX_BYTES = 4096
"""Of a message. Larger ones cost SCTP in Python more than a video track does, and one lost packet loses all of it."""

LEVEL = 1
"""Of zlib. A mask is long runs: level 9 saves a tenth of some 500 bytes and takes five times as long."""


@dataclass(frozen=True, slots=True, eq=False)
class MaskMessage:
    """A mask of one bit per pixel, and the frame it belongs to."""

    bits: Plane
    """(height, width) uint8, 1 where the person is."""
    rtp_timestamp: int
    """Of the frame, as the camera's track carried it: 0 to 2**32 - 1."""

    @classmethod
    def of(cls, mask: Mask, rtp_timestamp: int) -> "MaskMessage":
        """A mask cut at one half."""
        return cls(np.right_shift(mask.values, 7, dtype=np.uint8), rtp_timestamp)

    def pack(self) -> bytes:
        """The bytes, MAX_BYTES at most: a mask too ragged for that loses every second row and column."""
        bits = self.bits
        while len(message := _pack(bits, self.rtp_timestamp)) > MAX_BYTES:
            bits = bits[::2, ::2]
        return message


def _pack(bits: Plane, rtp_timestamp: int) -> bytes:
    height, width = bits.shape
    header = HEADER.pack(VERSION, width, height, rtp_timestamp)
    return header + zlib.compress(np.packbits(bits, axis=1).tobytes(), LEVEL)
