"""av.VideoFrame to Frame and back."""

import av
import numpy as np

from portrait.errors import BadPicture
from portrait.image.frame import Frame, Plane, Timestamp, check_size


def frame_from_av(picture: av.VideoFrame, max_pixels: int, arrived: float) -> Frame:
    """A Frame over the planes of `picture`, without copying them; other formats than yuv420p are converted first.

    Raises:
        BadPicture: larger than `max_pixels`, or without a timestamp.
    """
    check_size(picture.width, picture.height, max_pixels, "frame")
    if picture.pts is None or picture.time_base is None:
        raise BadPicture("frame", "a picture without a timestamp")
    timestamp = Timestamp(picture.pts, picture.time_base)
    if picture.format.name != "yuv420p":
        picture = picture.reformat(format="yuv420p")
    y, u, v = (_view(plane) for plane in picture.planes)
    return Frame(y, u, v, timestamp, arrived)


def av_from_frame(frame: Frame) -> av.VideoFrame:
    """A yuv420p picture with the frame's planes and time."""
    picture = av.VideoFrame(frame.width, frame.height, "yuv420p")
    for plane, pixels in zip(picture.planes, (frame.y, frame.u, frame.v), strict=True):
        _view(plane)[:] = pixels
    picture.pts, picture.time_base = frame.timestamp.ticks, frame.timestamp.time_base
    return picture


def _view(plane: av.video.plane.VideoPlane) -> Plane:
    """The plane's pixels without the padding at the end of each row."""
    rows: Plane = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]
