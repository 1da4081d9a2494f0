"""GrpcCodec: pictures of gRPC messages to frames, results to pictures."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np

from portrait.admission.pixel_budget import PixelBudget, decode_background
from portrait.core.compositors import GREY_MODES, MODES, Options
from portrait.core.pipeline import Result
from portrait.core.segmenters import Model
from portrait.core.segmenters.stills import StillModel
from portrait.errors import BadOption, BadPicture
from portrait.image.backgrounds import Backgrounds
from portrait.image.clip import Clip
from portrait.image.compressed import PictureFormat, decode_frame, encode
from portrait.image.convert import frame_from_i420, frame_from_rgb24, pack_rgb24, pack_rgba32
from portrait.image.frame import Frame, Mask, Plane, Timestamp, check_size, pack_i420
from portrait.v1 import segmentation_pb2 as pb

MICROSECOND = Fraction(1, 1_000_000)

DEFAULT_FORMATS: dict[str, "pb.PictureFormat.ValueType"] = {
    "mask": pb.PICTURE_FORMAT_GRAY8,
    "alpha": pb.PICTURE_FORMAT_GRAY8,
    "cutout": pb.PICTURE_FORMAT_RGBA32,
}
"""The format of a mode's results by default; other modes answer in the format of the frame."""

PICTURES: dict["pb.PictureFormat.ValueType", PictureFormat] = {
    pb.PICTURE_FORMAT_PNG: ".png",
    pb.PICTURE_FORMAT_WEBP: ".webp",
}
"""Files that can hold any result: grey, colour, or colour with alpha."""

GREY_ONLY = (pb.PICTURE_FORMAT_GRAY8, pb.PICTURE_FORMAT_GRAY1, pb.PICTURE_FORMAT_GRAY8_ZLIB)
GREY = (*GREY_ONLY, *PICTURES)

ZLIB_LEVEL = 1
"""Masks are mostly plain areas: higher levels take three times as long and save a tenth."""

CLOSER = 2
"""Times the network's size at which a picture is decoded that is to be looked at more closely."""

COMPRESSED = (pb.PICTURE_FORMAT_JPEG, *PICTURES)
RAW = {pb.PICTURE_FORMAT_I420: frame_from_i420, pb.PICTURE_FORMAT_RGB24: frame_from_rgb24}
PACKED: dict["pb.PictureFormat.ValueType", Callable[[Frame], bytes]] = {
    pb.PICTURE_FORMAT_I420: pack_i420,
    pb.PICTURE_FORMAT_RGB24: pack_rgb24,
    pb.PICTURE_FORMAT_RGBA32: pack_rgba32,
}
FILES: dict["pb.PictureFormat.ValueType", PictureFormat] = {pb.PICTURE_FORMAT_JPEG: ".jpg", **PICTURES}


@dataclass(frozen=True, slots=True)
class Output:
    """How the results of a stream look: the session's options and the format of the bytes (0: the mode's default)."""

    options: Options
    format: "pb.PictureFormat.ValueType"
    mask_size: "pb.MaskSize.ValueType"


class PictureFields(Protocol):
    """The members of portrait.v1.Picture; requests of KServe bring theirs in another form."""

    @property
    def format(self) -> "pb.PictureFormat.ValueType":
        """How its bytes are laid out."""

    @property
    def width(self) -> int:
        """Pixels per row; of no meaning where the bytes have a header."""

    @property
    def height(self) -> int:
        """Rows; of no meaning where the bytes have a header."""

    @property
    def data(self) -> bytes:
        """The bytes."""


@dataclass(frozen=True, slots=True)
class IncomingPicture:
    """A picture as it came, with the output that applied then."""

    picture: "PictureFields"
    output: Output
    timestamp_us: int
    wants_prior: bool = False


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """A picture to send. Not a message: that would be copied once more into the response."""

    format: "pb.PictureFormat.ValueType"
    width: int
    height: int
    data: bytes

    def write(self, message: pb.Picture) -> None:
        """Fill in an empty message."""
        message.format, message.width, message.height, message.data = self.format, self.width, self.height, self.data


@dataclass(frozen=True, slots=True)
class EncodedResult:
    """A result to send."""

    picture: EncodedPicture
    prior: EncodedPicture | None


async def read_background(
    message: pb.Output, backgrounds: Backgrounds, budget: PixelBudget, *, ahead: bool = False
) -> Frame | Clip | None:
    """The background a message brings or names; `ahead` of stills where it is for an open stream.

    Raises:
        BadOption, BadPicture: names the field.
        TooManyPixels: its pixels do not become free in time.
    """
    if message.background_picture:
        return await decode_background(message.background_picture, backgrounds, budget, ahead=ahead)
    return await backgrounds.pick(message.background_name) if message.background_name else None


def read_output(message: pb.Output, background: Frame | Clip | None) -> Output:
    """The output a message asks for, with its background.

    Raises:
        BadOption: names the field.
    """
    mode = message.mode or "mask"
    if message.format not in pb.PictureFormat.values():
        raise BadOption("format", f"got {message.format}, expected one of {pb.PictureFormat.keys()}")
    if message.format == pb.PICTURE_FORMAT_RGBA32 and mode != "cutout":
        raise BadOption("format", f"got RGBA32 for mode {mode!r}; only cutout has an alpha channel")
    if message.format in GREY_ONLY and mode not in GREY_MODES:
        name = pb.PictureFormat.Name(message.format).removeprefix("PICTURE_FORMAT_")
        raise BadOption("format", f"got {name} for mode {mode!r}; only mask and alpha are grey")
    if message.mask_size not in pb.MaskSize.values():
        raise BadOption("mask_size", f"got {message.mask_size}, expected one of {pb.MaskSize.keys()}")
    defaults = Options(mode)
    options = Options(
        mode,
        message.color or defaults.color,
        background,
        # The nearest 32-bit float of 0.3 becomes 0.3 again.
        round(message.threshold, 6) if message.HasField("threshold") else defaults.threshold,
        round(message.feather, 6) if message.HasField("feather") else defaults.feather,
        message.framing,
        message.decontaminate,
        round(message.margin, 6) if message.HasField("margin") else defaults.margin,
        message.people or defaults.people,
    )
    return Output(options, message.format, message.mask_size)


def read_prior(picture: pb.Picture, max_pixels: int) -> Mask:
    """The mask that a stream continues from.

    Raises:
        BadPicture: not GRAY8 or GRAY8_ZLIB, too large, or a wrong number of bytes.
    """
    check_size(picture.width, picture.height, max_pixels, "prior")
    expected, data = picture.width * picture.height, picture.data
    if picture.format == pb.PICTURE_FORMAT_GRAY8_ZLIB:
        try:
            # One byte more than expected shows that there is too much, without unpacking the rest.
            data = zlib.decompressobj().decompress(data, expected + 1)
        except zlib.error as error:
            raise BadPicture("prior", f"got bytes that are not a zlib stream: {error}") from error
    elif picture.format != pb.PICTURE_FORMAT_GRAY8:
        raise BadPicture("prior", f"got format {picture.format}, expected GRAY8 (4) or GRAY8_ZLIB (8)")
    if len(data) != expected:
        size = f"{picture.width}x{picture.height}"
        raise BadPicture("prior", f"got {len(data)} bytes for {size} GRAY8, expected {expected}")
    return Mask(np.frombuffer(data, np.uint8).reshape(picture.height, picture.width))


class GrpcCodec:
    """The codec of gRPC sessions. `max_pixels` bounds pictures; `model` says how large a picture the network needs."""

    modes = tuple(MODES)

    def __init__(self, max_pixels: int, model: Model) -> None:
        side = max(model.width, model.height)
        self._max_pixels, self._least = max_pixels, CLOSER * side if isinstance(model, StillModel) else side
        self._began: float | None = None
        """When the first frame arrived."""

    def decode(self, picture: IncomingPicture, arrived: float, options: Options) -> Frame:
        """A Frame of a message.

        Raises:
            BadPicture: unknown format, not a picture, too large, or a wrong number of bytes.
        """
        message, timestamp = picture.picture, self._timestamp(picture, arrived)
        if message.format in COMPRESSED:
            # A picture that is not shown is needed at the size of the network only.
            least = self._least if _is_grey(options.mode, picture) else None
            return decode_frame(message.data, self._max_pixels, "data", timestamp, arrived, least)
        if message.format not in RAW:
            raise BadPicture("format", f"got {message.format}, expected JPEG (1), I420 (2) or RGB24 (3)")
        check_size(message.width, message.height, self._max_pixels, "picture")
        return RAW[message.format](message.data, message.width, message.height, timestamp, arrived)

    def _timestamp(self, picture: IncomingPicture, arrived: float) -> Timestamp:
        """A frame's media time. One of 0 says that there is none: it is then the time since the first frame.

        The first frame of a stream has the time 0 either way, so that a stream that begins at 0 does not jump.
        """
        if self._began is None:
            self._began = arrived
        return Timestamp(picture.timestamp_us or round((arrived - self._began) * 1e6), MICROSECOND)

    def encode(self, result: Result, picture: IncomingPicture) -> EncodedResult:
        """The result in the format asked for, and the prior if that was asked for."""
        prior = None
        if picture.wants_prior and result.failure is None:
            prior = _grey_picture(result.prior.values, pb.PICTURE_FORMAT_GRAY8_ZLIB)
        return EncodedResult(self._encode(result, picture), prior)

    def _encode(self, result: Result, picture: IncomingPicture) -> EncodedPicture:
        mode, output = result.options.mode, picture.output
        layout = _layout(mode, picture)
        if _is_grey(mode, picture):
            with result.metrics.stage("compose"):
                values = result.grey(_grey_size(result, output.mask_size))
            with result.metrics.stage("encode"):
                return _grey_picture(values, layout)
        if layout in GREY_ONLY:  # the mode was changed over HTTP
            layout = picture.picture.format
        frame = result.compose()
        with result.metrics.stage("encode"):
            return _write(frame, layout)


def _layout(mode: str, picture: IncomingPicture) -> "pb.PictureFormat.ValueType":
    return picture.output.format or DEFAULT_FORMATS.get(mode, picture.picture.format)


def _is_grey(mode: str, picture: IncomingPicture) -> bool:
    """Whether the result is one number per pixel, without anything of the picture itself."""
    return mode in GREY_MODES and _layout(mode, picture) in GREY


def _grey_size(result: Result, size: "pb.MaskSize.ValueType") -> tuple[int, int] | None:
    """(width, height) asked for: the model's, or None for the frame's, which is the default of alpha only."""
    if size == pb.MASK_SIZE_FRAME or (size != pb.MASK_SIZE_MODEL and result.options.mode == "alpha"):
        return None
    return result.mask.width, result.mask.height


def encode_watched(frame: Frame, layout: "pb.PictureFormat.ValueType", *, is_mask: bool) -> EncodedPicture:
    """A frame of a named stream in a layout, which is one of GREY for a mask, whose luma is the probability."""
    return _grey_picture(frame.y, layout) if is_mask else _write(frame, layout)


def _grey_picture(values: Plane, layout: "pb.PictureFormat.ValueType") -> EncodedPicture:
    if layout == pb.PICTURE_FORMAT_GRAY1:
        return _picture(values, layout, np.packbits(values > 127, axis=1).tobytes())
    if layout == pb.PICTURE_FORMAT_GRAY8_ZLIB:
        return _picture(values, layout, zlib.compress(values.tobytes(), ZLIB_LEVEL))
    return _picture(values, layout, encode(values, PICTURES[layout]) if layout in PICTURES else None)


def _write(frame: Frame, layout: "pb.PictureFormat.ValueType") -> EncodedPicture:
    data = PACKED[layout](frame) if layout in PACKED else encode(frame, FILES[layout])
    return EncodedPicture(layout, frame.width, frame.height, data)


def _picture(pixels: Plane, layout: "pb.PictureFormat.ValueType", data: bytes | None = None) -> EncodedPicture:
    height, width = pixels.shape[:2]
    return EncodedPicture(layout, width, height, pixels.tobytes() if data is None else data)
