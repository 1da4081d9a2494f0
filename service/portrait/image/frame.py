"""Frame, one decoded picture in the service's only pixel format, and Mask, where the person is in it."""

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from portrait.errors import BadPicture

Plane: TypeAlias = NDArray[np.uint8]
Planes: TypeAlias = tuple[Plane, Plane, Plane]
"""Y, U and V."""

GREY = 128
"""The chroma of a picture without colour, and red, green and blue of what shows nothing."""


class Matrix(Enum):
    """How luma and chroma are made of red, green and blue: the shares of red and of blue in luma (ITU-T H.273, 8.3)."""

    BT601 = (0.299, 0.114)
    BT709 = (0.2126, 0.0722)
    BT2020 = (0.2627, 0.0593)


class Range(Enum):
    """What black and white are: (luma of black, levels from black to white, levels of chroma)."""

    LIMITED = (16, 219, 224)
    FULL = (0, 255, 255)


@dataclass(frozen=True, slots=True)
class Colors:
    """What the levels of a frame mean. The default is what webcams and VP8 have, and every frame made of RGB."""

    matrix: Matrix = Matrix.BT601
    range: Range = Range.LIMITED

    def luma(self, grey: int) -> int:
        """The luma of a grey of 0..255."""
        black, levels, _ = self.range.value
        return round(black + grey * levels / 255)


CAMERA = Colors()


@dataclass(frozen=True, slots=True)
class Timestamp:
    """Media time, carried from input to output untouched."""

    ticks: int
    time_base: Fraction
    """Seconds per tick."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Frame:
    """One picture in I420: 8 bits, chroma at half size rounded up, in the colours that `colors` says.

    WebRTC's codecs use this format, and blending its planes costs half of blending RGB. The planes may be views of
    memory owned by others and are never written to. A result has the colours of the frame it was made of.
    """

    y: Plane
    """(height, width) uint8."""
    u: Plane
    """((height + 1) // 2, (width + 1) // 2) uint8."""
    v: Plane
    """As `u`."""
    timestamp: Timestamp
    arrived: float
    """Seconds on the monotonic clock."""
    alpha: Plane | None = None
    """(height, width) uint8, 255 = opaque, of a cutout or of a source that has one; its pixels of 0 have no colour."""
    full_size: tuple[int, int] | None = None
    """(width, height) of the source picture, where it was decoded smaller; None: it was decoded at its own size."""
    colors: Colors = CAMERA
    small: Plane | None = None
    """(h, w) uint8: its luma at the size of a network, where that has been made already. Other planes have none."""

    @property
    def seconds(self) -> float:
        """Its media time."""
        base = self.timestamp.time_base
        return self.timestamp.ticks * base.numerator / base.denominator  # a Fraction of it takes ten times as long

    @property
    def width(self) -> int:
        """Pixels per row."""
        return int(self.y.shape[1])

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.y.shape[0])

    @property
    def came(self) -> tuple[int, int]:
        """(width, height) of the source picture."""
        return self.full_size or (self.width, self.height)

    def with_planes(self, y: Plane, u: Plane, v: Plane, alpha: Plane | None = None) -> "Frame":
        """A frame of the same time and colours with other planes."""
        # dataclasses.replace takes several times as long, which counts for every frame of a stream.
        return Frame(y, u, v, self.timestamp, self.arrived, alpha, self.full_size, self.colors)

    def with_small(self, small: Plane) -> "Frame":
        """The same frame with its luma at the size of a network."""
        return Frame(
            self.y, self.u, self.v, self.timestamp, self.arrived, self.alpha, self.full_size, self.colors, small
        )


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """Person probability at the network's own size; resized only where it is used."""

    values: Plane
    """(height, width) uint8, 0 = background, 255 = person."""
    fine: bool = False
    """Whether its contours are as fine as its pixels, as those of several looks are; one look's are half as fine."""

    @property
    def width(self) -> int:
        """Pixels per row."""
        return int(self.values.shape[1])

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.values.shape[0])

    @classmethod
    def empty(cls, width: int, height: int) -> "Mask":
        """A mask without a person. Composing with it shows no pixel of the camera: so the service fails closed."""
        return cls(np.zeros((height, width), np.uint8))


def chroma_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of the chroma planes."""
    return (width + 1) // 2, (height + 1) // 2


def i420_length(width: int, height: int) -> int:
    """Bytes of a tightly packed I420 picture."""
    chroma_width, chroma_height = chroma_size(width, height)
    return width * height + 2 * chroma_width * chroma_height


def split_i420(data: Plane, width: int, height: int) -> tuple[Plane, Plane, Plane]:
    """The three planes of a packed picture (flat uint8 of `i420_length`), as views."""
    chroma_width, chroma_height = chroma_size(width, height)
    luma, chroma = width * height, chroma_width * chroma_height
    return (
        data[:luma].reshape(height, width),
        data[luma : luma + chroma].reshape(chroma_height, chroma_width),
        data[luma + chroma : luma + 2 * chroma].reshape(chroma_height, chroma_width),
    )


def pack_i420(frame: Frame) -> bytes:
    """The planes of `frame` one after the other, without padding."""
    return b"".join(np.ascontiguousarray(plane).tobytes() for plane in (frame.y, frame.u, frame.v))


def check_size(width: int, height: int, max_pixels: int, field: str) -> None:
    """Refuse a picture without pixels or with too many.

    Raises:
        BadPicture: says the size and the limit.
    """
    if width < 1 or height < 1:
        raise BadPicture(field, f"got {width}x{height}, expected at least 1x1")
    if width * height > max_pixels:
        message = f"{width}x{height} is {width * height} pixels; expected at most {max_pixels}"
        raise BadPicture(field, message, (width, height))
