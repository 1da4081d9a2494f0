"""av.VideoFrame to Frame and back."""

from collections.abc import Mapping

import av
import numpy as np
from av.video.reformatter import ColorRange

from portrait.errors import BadPicture
from portrait.image.convert import hidden
from portrait.image.frame import GREY, Colors, Frame, Matrix, Plane, Range, Timestamp, check_size

MATRICES: Mapping[int, Matrix] = {
    1: Matrix.BT709,
    4: Matrix.BT601,  # FCC: 0.30 and 0.11 for 0.299 and 0.114
    5: Matrix.BT601,
    6: Matrix.BT601,
    7: Matrix.BT709,  # SMPTE 240M: 0.212 and 0.087 for 0.2126 and 0.0722
    9: Matrix.BT2020,
    10: Matrix.BT2020,
}
"""By AVColorSpace, which has the numbers of ITU-T H.273, 8.3. Others are unknown."""

COLORSPACES: Mapping[Matrix, int] = {Matrix.BT601: 6, Matrix.BT709: 1, Matrix.BT2020: 9}

PLANAR = ("yuv420p", "yuvj420p")
"""The formats with a Frame's planes. FFmpeg's older names of full range begin with yuvj."""


def frame_from_av(picture: av.VideoFrame, max_pixels: int, arrived: float, unknown: Matrix = Matrix.BT601) -> Frame:
    """A Frame over the planes of `picture`, without copying them; other formats than planar 4:2:0 are converted first.

    Its colours are the picture's; the matrix is `unknown` where the picture names none, the range is limited where it
    says nothing of full range. A picture in RGB becomes one of `unknown` in limited range. Pixels of alpha 0 are grey.

    Raises:
        BadPicture: larger than `max_pixels`, or without a timestamp.
    """
    check_size(picture.width, picture.height, max_pixels, "frame")
    if picture.pts is None or picture.time_base is None:
        raise BadPicture("frame", "got a picture without a timestamp")
    timestamp = Timestamp(picture.pts, picture.time_base)
    name = picture.format.name
    has_alpha = name not in PLANAR and any(component.is_alpha for component in picture.format.components)
    matrix = MATRICES.get(picture.colorspace, unknown)
    full = picture.color_range == ColorRange.JPEG or name.startswith("yuvj")
    if name not in (*PLANAR, "yuva420p"):
        # RGB and grey are always of full range, whatever their tag says, and become limited.
        full = full and name.startswith("yuv")
        source, target = (ColorRange.JPEG, ColorRange.JPEG) if full else (None, ColorRange.MPEG)
        picture = picture.reformat(
            format="yuva420p" if has_alpha else "yuv420p",
            dst_colorspace=COLORSPACES[matrix],
            src_color_range=source,
            dst_color_range=target,
        )
    y, u, v, *alpha = (_view(plane) for plane in picture.planes)
    frame = Frame(y, u, v, timestamp, arrived, colors=Colors(matrix, Range.FULL if full else Range.LIMITED))
    return hidden(frame, alpha[0].copy(), GREY) if alpha else frame


def av_from_frame(frame: Frame) -> av.VideoFrame:
    """A yuv420p picture with the frame's planes, time and colours."""
    picture = av.VideoFrame(frame.width, frame.height, "yuv420p")
    for plane, pixels in zip(picture.planes, (frame.y, frame.u, frame.v), strict=True):
        _view(plane)[:] = pixels
    picture.pts, picture.time_base = frame.timestamp.ticks, frame.timestamp.time_base
    picture.colorspace = COLORSPACES[frame.colors.matrix]
    picture.color_range = ColorRange.JPEG if frame.colors.range is Range.FULL else ColorRange.MPEG
    return picture


def _view(plane: av.video.plane.VideoPlane) -> Plane:
    """The plane's pixels without the padding at the end of each row."""
    rows: Plane = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]
