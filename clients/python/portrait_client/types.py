"""The values of the client: pictures, replies, TLS, errors."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import grpc
import numpy as np
from numpy.typing import NDArray

from portrait_client.rpc import ErrorInfo, RetryInfo, Status
from portrait_client.v1 import segmentation_pb2 as pb

Array = NDArray[np.uint8]

PEM = b"-----BEGIN "

STATUS_DETAILS = "grpc-status-details-bin"
"""Where gRPC carries a google.rpc.Status."""


class OutputFields(TypedDict, total=False):
    """The fields of portrait.v1.Output: how results look.

    `format` and `mask_size` are values of portrait_client.v1.segmentation_pb2: PICTURE_FORMAT_PNG, MASK_SIZE_FRAME.
    """

    mode: str
    color: str
    background_name: str
    background_picture: bytes
    format: "pb.PictureFormat.ValueType"
    mask_size: "pb.MaskSize.ValueType"
    threshold: float
    feather: float
    framing: bool
    decontaminate: bool
    margin: float
    people: str


@dataclass(frozen=True, slots=True)
class Tls:
    """How to trust the server, and how to be trusted by it. All are contents of PEM files.

    Raises:
        ValueError: not PEM, or a certificate without its key, or a key without a certificate.
    """

    roots: bytes | None = None
    """Certificates the server's is checked against; None: the system's."""
    certificate: bytes | None = None
    """The client's own, where the server asks for one."""
    key: bytes | None = None

    def __post_init__(self) -> None:
        # gRPC checks none of it before it connects, and ends the process for a certificate without a key.
        for name in ("roots", "certificate", "key"):
            given = getattr(self, name)
            if given is not None and not (isinstance(given, bytes) and PEM in given):
                raise ValueError(
                    f"{name}: got {type(given).__name__} without {PEM.decode()!r}, expected the bytes of a PEM file"
                )
        if (self.certificate is None) != (self.key is None):
            missing = "certificate" if self.certificate is None else "key"
            raise ValueError(f"{missing}: got None, expected a certificate and its key, or neither")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to send."""

    message: pb.Picture

    @classmethod
    def of(cls, frame: "Picture | Array") -> "Picture":
        """A picture as it is, or the picture of pixels (H, W, 3) uint8 RGB.

        Raises:
            TypeError: something else.
        """
        return frame if isinstance(frame, Picture) else cls.rgb24(frame)

    @classmethod
    def jpeg(cls, data: bytes) -> "Picture":
        """A JPEG file."""
        return cls(pb.Picture(format=pb.PICTURE_FORMAT_JPEG, data=data))

    @classmethod
    def i420(cls, data: bytes, width: int, height: int) -> "Picture":
        """Packed planes: Y, then U, then V, chroma at half size rounded up."""
        return cls(pb.Picture(format=pb.PICTURE_FORMAT_I420, width=width, height=height, data=data))

    @classmethod
    def rgb24(cls, pixels: Array) -> "Picture":
        """(H, W, 3) uint8 RGB.

        Raises:
            TypeError: something else.
        """
        if not is_array(pixels, (None, None, 3)):
            expected = "a Picture, such as Picture.jpeg(data), or pixels, (H, W, 3) uint8 RGB"
            raise TypeError(f"got {described(pixels)}, expected {expected}")
        height, width, _ = pixels.shape
        return cls(pb.Picture(format=pb.PICTURE_FORMAT_RGB24, width=width, height=height, data=pixels.tobytes()))


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether a person is in the picture, by the service's rule. Not for counting people, nor for safety."""

    present: bool
    share: float
    """Of the frame's pixels, a person's; 0 to 1."""
    box: tuple[float, float, float, float] | None
    """(left, top, width, height) around them, in fractions of the picture; None where nobody is."""

    @classmethod
    def of(cls, message: pb.Presence) -> "Presence":
        """The presence of a message."""
        box = message.box
        place = (box.left, box.top, box.width, box.height) if message.HasField("box") else None
        return cls(message.present, message.share, place)


@dataclass(frozen=True, slots=True)
class Reply:
    """A result."""

    id: int
    timestamp_us: int
    """The frame's own, in microseconds."""
    picture: pb.Picture
    error: "ClientError | None"
    """Why this frame failed; the stream continues."""
    dropped: int
    """Frames dropped for newer ones since the previous reply."""
    wait_seconds: float
    """In the server, from arrival to the start of work."""
    work_seconds: float
    quality: str = "full"
    """The quality level of the frame: full, still, alternate, smaller or slower (portrait.v1.Quality)."""
    carried: bool = False
    """Whether the mask is that of an earlier frame: nothing that matters has moved, or the quality level allows it."""
    prior_picture: pb.Picture | None = None
    """The mask of this frame for another stream to continue from, where it was asked for."""
    presence: Presence | None = None
    """Whether a person is in the picture; None of a frame that was refused, and of a server that does not say."""

    @property
    def array(self) -> Array:
        """The pixels, uint8, read-only.

        (H,W) of GRAY8, GRAY8_ZLIB and, as 0 or 255, GRAY1; (H,W,3) of RGB24; (H,W,4) of RGBA32; flat bytes of I420,
        JPEG, PNG and WEBP.

        Raises:
            ClientError: the frame was refused and has none; it is `error`.
        """
        if self.error is not None and not self.picture.data:
            raise self.error
        return decode(self.picture)

    @property
    def prior(self) -> Array | None:
        """(H,W) uint8 of the model's size, or None."""
        return None if self.prior_picture is None else decode(self.prior_picture)


def decode(picture: pb.Picture) -> Array:
    """The pixels of a result, as `Reply.array` gives them."""
    height, width = picture.height, picture.width
    packed = picture.format == pb.PICTURE_FORMAT_GRAY8_ZLIB
    pixels: Array = np.frombuffer(zlib.decompress(picture.data) if packed else picture.data, np.uint8)
    if picture.format == pb.PICTURE_FORMAT_GRAY1:
        mask: Array = np.unpackbits(pixels.reshape(height, -1), axis=1, count=width) * np.uint8(255)
        return mask
    if picture.format in (pb.PICTURE_FORMAT_GRAY8, pb.PICTURE_FORMAT_GRAY8_ZLIB):
        return pixels.reshape(height, width)
    if picture.format in (pb.PICTURE_FORMAT_RGB24, pb.PICTURE_FORMAT_RGBA32):
        return pixels.reshape(height, width, -1)
    return pixels


def is_array(value: object, shape: Sequence[int | None]) -> bool:
    """Whether it is uint8 of that shape; None: any length."""
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and len(value.shape) == len(shape)
        and all(wanted in (None, length) for wanted, length in zip(shape, value.shape, strict=True))
    )


def described(value: object) -> str:
    """A value as errors show it."""
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


class ClientError(Exception):
    """A call that the service refused or could not complete.

    `code` is the gRPC status's name (INVALID_ARGUMENT), `reason` the service's (BAD_PICTURE), `retry_after` the
    seconds to wait before another try, or None where another try would not help.
    """

    def __init__(self, code: str, message: str, reason: str = "", retry_after: float | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.reason, self.retry_after = code, message, reason, retry_after

    @classmethod
    def from_status(cls, status: Any) -> "ClientError":
        """The error of a google.rpc.Status."""
        code = next((code.name for code in grpc.StatusCode if code.value[0] == status.code), str(status.code))
        reason, retry_after = "", None
        for detail in status.details:
            info, retry = ErrorInfo(), RetryInfo()
            if detail.Unpack(info):
                reason = info.reason
            elif detail.Unpack(retry):
                retry_after = retry.retry_delay.ToMilliseconds() / 1000
        return cls(code, status.message, reason, retry_after)

    @classmethod
    def from_rpc(cls, error: grpc.aio.AioRpcError) -> "ClientError":
        """The error of a failed call."""
        # The server's own status, if it sent one: a proxy that cuts the stream afterwards adds another code.
        for name, value in error.trailing_metadata() or ():
            if name == STATUS_DETAILS:
                return cls.from_status(Status.FromString(value))
        if error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED):
            # The server's own errors have details. INTERNAL comes from grpc.aio when a message could not be sent, and
            # from nginx when the server died; CANCELLED comes from HAProxy.
            return cls("UNAVAILABLE", f"the connection was lost: {error.details()}")
        return cls(error.code().name, error.details() or "no details")
