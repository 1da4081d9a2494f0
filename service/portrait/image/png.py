"""PNG files, written strip by strip: beside a picture only its file is in memory, once."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np

from portrait.image.convert import rgb_from_pixels, rgb_of, strips
from portrait.image.frame import Frame, Plane

SIGNATURE = b"\x89PNG\r\n\x1a\n"

COLOR_TYPES = {1: 0, 3: 2, 4: 6}
"""Grey, RGB and RGBA, by the number of channels."""

SUB = 1
"""The filter that stores each byte as its difference from that of the pixel to the left."""

LEVEL = 3
"""Of deflate: the last level without lazy matching, which takes longer and gains nothing here before level 6."""


def encode_png(picture: Plane | Frame) -> bytes:
    """The file of a Frame, or of (H,W) grey, (H,W,3) BGR or (H,W,4) BGRA uint8 (W3C PNG, third edition)."""
    height, width = (picture.height, picture.width) if isinstance(picture, Frame) else picture.shape[:2]
    file, packer = io.BytesIO(), zlib.compressobj(LEVEL, strategy=zlib.Z_FILTERED)
    file.write(SIGNATURE)
    for number, rows in enumerate(_rows(picture, height, width)):
        if number == 0:
            _write(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, COLOR_TYPES[rows.shape[2]], 0, 0, 0))
        _write(file, b"IDAT", packer.compress(_filtered(rows).data))
    _write(file, b"IDAT", packer.flush())
    _write(file, b"IEND", b"")
    return file.getvalue()


def _rows(picture: Plane | Frame, height: int, width: int) -> Iterator[Plane]:
    """The picture's rows in strips, (rows, width, 1, 3 or 4)."""
    for part in strips(width, height):
        if isinstance(picture, Frame):
            yield rgb_of(picture, part.start, part.stop)
        elif picture.ndim == 2:
            yield picture[part, :, np.newaxis]
        else:
            yield rgb_from_pixels(picture[part])


def _filtered(rows: Plane) -> Plane:
    """(rows, 1 + width * channels): each row behind the number of its filter."""
    count, width, channels = rows.shape
    line = rows.reshape(count, width * channels)
    filtered: Plane = np.empty((count, 1 + width * channels), np.uint8)
    filtered[:, 0], filtered[:, 1 : 1 + channels] = SUB, line[:, :channels]
    np.subtract(line[:, channels:], line[:, :-channels], out=filtered[:, 1 + channels :])
    return filtered


def _write(file: io.BytesIO, kind: bytes, data: bytes) -> None:
    """Add a chunk; one of no data is only added where it marks the end."""
    if data or kind == b"IEND":
        checksum = zlib.crc32(data, zlib.crc32(kind))
        file.write(struct.pack(">I", len(data)) + kind)
        file.write(data)
        file.write(struct.pack(">I", checksum))
