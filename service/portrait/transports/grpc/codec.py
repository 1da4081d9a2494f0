"""gRPC messages to frames, results to messages."""

from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np

from portrait.backgrounds import Backgrounds, load_background
from portrait.compositors import MODES, Options
from portrait.errors import BadOption, BadPicture
from portrait.frame import Frame, Plane, Timestamp, pack_i420
from portrait.pictures import (
    bgr_from_frame,
    check_size,
    decode_bgr,
    encode,
    frame_from_bgr,
    frame_from_i420,
    frame_from_rgb24,
    rgba_from_frame,
)
from portrait.pipeline import Result
from portrait.v1 import segmentation_pb2 as pb

MICROSECOND = Fraction(1, 1_000_000)

DEFAULT_FORMATS: dict[str, "pb.PictureFormat.ValueType"] = {
    "mask": pb.PICTURE_FORMAT_GRAY8,
    "alpha": pb.PICTURE_FORMAT_GRAY8,
    "cutout": pb.PICTURE_FORMAT_RGBA32,
}
"""What a mode's result looks like when the client does not say; other modes answer in the frame's own format."""

COMPRESSED = (pb.PICTURE_FORMAT_JPEG, pb.PICTURE_FORMAT_PNG)
RAW = {pb.PICTURE_FORMAT_I420: frame_from_i420, pb.PICTURE_FORMAT_RGB24: frame_from_rgb24}


@dataclass(frozen=True, slots=True)
class Output:
    """How a stream's results look: the session's options and the bytes' layout (0: the mode's default)."""

    options: Options
    format: "pb.PictureFormat.ValueType"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A picture as it came, with the output that was in force then."""

    picture: pb.Picture
    output: Output
    timestamp_us: int


def read_output(message: pb.Output, backgrounds: Backgrounds) -> Output:
    """The output a message asks for. Decodes a background: not for the event loop's thread.

    Raises:
        BadOption, BadPicture: names the field.
    """
    background = None
    if message.background_picture:
        background = load_background(message.background_picture)
    elif message.background_name:
        background = backgrounds.pick(message.background_name)
    mode, color = message.mode or "mask", message.color or Options().color
    if message.format not in pb.PictureFormat.values():
        raise BadOption("format", f"unknown format {message.format}; expected one of {pb.PictureFormat.keys()}")
    if message.format == pb.PICTURE_FORMAT_RGBA32 and mode != "cutout":
        raise BadOption("format", f"RGBA32 was asked for with mode {mode!r}; only cutout has an alpha")
    if message.format == pb.PICTURE_FORMAT_GRAY8 and mode not in ("mask", "alpha"):
        raise BadOption("format", f"GRAY8 was asked for with mode {mode!r}; only mask and alpha are grey")
    return Output(Options(mode, color, background), message.format)


class GrpcCodec:
    """The codec of every gRPC session; `max_pixels` bounds what is decoded."""

    modes = tuple(MODES)

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels

    def decode(self, picture: Arrival, arrived: float) -> Frame:
        """A Frame of a message.

        Raises:
            BadPicture: unknown format, no picture, too large, or a byte count that does not fit.
        """
        message, timestamp = picture.picture, Timestamp(picture.timestamp_us, MICROSECOND)
        if message.format in COMPRESSED:
            return frame_from_bgr(decode_bgr(message.data, self._max_pixels, "data"), timestamp, arrived)
        if message.format not in RAW:
            raise BadPicture("format", f"{message.format} was sent; expected JPEG (1), I420 (2) or RGB24 (3)")
        check_size(message.width, message.height, self._max_pixels, "picture")
        return RAW[message.format](message.data, message.width, message.height, timestamp, arrived)

    def encode(self, result: Result, picture: Arrival) -> pb.Picture:
        """The result in the format asked for."""
        mode = result.options.mode
        layout = picture.output.format or DEFAULT_FORMATS.get(mode, picture.picture.format)
        if mode == "mask" and layout in (pb.PICTURE_FORMAT_GRAY8, pb.PICTURE_FORMAT_PNG):
            return self._grey(result, result.mask.values, layout)
        frame = result.compose()
        with result.recorder.stage("encode"):
            return _write(frame, mode, layout)

    def _grey(self, result: Result, values: Plane, layout: "pb.PictureFormat.ValueType") -> pb.Picture:
        with result.recorder.stage("encode"):
            return _picture(values, layout, encode(values, ".png") if layout == pb.PICTURE_FORMAT_PNG else None)


def _write(frame: Frame, mode: str, layout: "pb.PictureFormat.ValueType") -> pb.Picture:
    if layout == pb.PICTURE_FORMAT_I420:
        return pb.Picture(format=layout, width=frame.width, height=frame.height, data=pack_i420(frame))
    if layout == pb.PICTURE_FORMAT_GRAY8:
        return _picture(_full_range(frame), layout)
    if layout == pb.PICTURE_FORMAT_RGBA32:
        return _picture(np.asarray(cv2.cvtColor(rgba_from_frame(frame), cv2.COLOR_BGRA2RGBA), np.uint8), layout)
    if layout == pb.PICTURE_FORMAT_PNG:
        if mode == "alpha":
            pixels = _full_range(frame)
        else:
            pixels = rgba_from_frame(frame) if frame.alpha is not None else bgr_from_frame(frame)
        return _picture(pixels, layout, encode(pixels, ".png"))
    pixels = bgr_from_frame(frame)
    if layout == pb.PICTURE_FORMAT_JPEG:
        return _picture(pixels, layout, encode(pixels, ".jpg"))
    return _picture(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8), layout)


def _full_range(frame: Frame) -> Plane:
    """The luma of a grey picture as 0..255."""
    return np.asarray(cv2.convertScaleAbs(frame.y, alpha=255 / 219, beta=-16 * 255 / 219), np.uint8)


def _picture(pixels: Plane, layout: "pb.PictureFormat.ValueType", data: bytes | None = None) -> pb.Picture:
    height, width = pixels.shape[:2]
    return pb.Picture(format=layout, width=width, height=height, data=pixels.tobytes() if data is None else data)
