"""Frames to and from other pixels: BGR, BGRA, RGB, packed I420; to other colours, and to another size.

Frames made here have the colours of a camera, BT.601 in limited range; a frame with others is converted rightly.
"""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait.errors import BadPicture
from portrait.image.frame import (
    CAMERA,
    GREY,
    Colors,
    Frame,
    Matrix,
    Plane,
    Timestamp,
    chroma_size,
    i420_length,
    split_i420,
)


def frame_from_bgr(pixels: Plane, timestamp: Timestamp, arrived: float) -> Frame:
    """A Frame of (H,W,3) uint8 BGR; odd sizes too."""
    return _convert(pixels, cv2.COLOR_BGR2YUV_I420, timestamp, arrived)


def _convert(pixels: Plane, code: int, timestamp: Timestamp, arrived: float) -> Frame:
    height, width = pixels.shape[:2]
    if height % 2 or width % 2:
        # OpenCV converts even sizes only: repeat the last row or column, then cut the planes back.
        border = cv2.copyMakeBorder(pixels, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        pixels = np.asarray(border, np.uint8)
    packed = np.asarray(cv2.cvtColor(pixels, code), np.uint8)
    y, u, v = split_i420(packed.reshape(-1), pixels.shape[1], pixels.shape[0])
    return Frame(y[:height, :width], u, v, timestamp, arrived)


def bgr_from_frame(frame: Frame) -> Plane:
    """(H,W,3) uint8 BGR of a Frame; odd sizes too."""
    frame = recolored(frame, CAMERA)
    width, height = frame.width + frame.width % 2, frame.height + frame.height % 2
    packed: Plane = np.empty(i420_length(width, height), np.uint8)
    y, u, v = split_i420(packed, width, height)
    y[: frame.height, : frame.width] = frame.y
    y[frame.height :, : frame.width] = frame.y[-1]
    y[:, frame.width :] = y[:, frame.width - 1 : frame.width]
    u[:], v[:] = frame.u, frame.v
    pixels = cv2.cvtColor(packed.reshape(height * 3 // 2, width), cv2.COLOR_YUV2BGR_I420)
    return np.asarray(pixels[: frame.height, : frame.width], np.uint8)


def frame_from_i420(data: bytes, width: int, height: int, timestamp: Timestamp, arrived: float) -> Frame:
    """A Frame over packed I420 bytes, without copying them.

    Raises:
        BadPicture: the byte count does not fit the size.
    """
    expected = i420_length(width, height)
    if len(data) != expected:
        raise BadPicture("data", f"{len(data)} bytes for {width}x{height} I420; expected {expected}")
    return Frame(*split_i420(np.frombuffer(data, np.uint8), width, height), timestamp, arrived)


def frame_from_rgb24(data: bytes, width: int, height: int, timestamp: Timestamp, arrived: float) -> Frame:
    """A Frame of packed 8-bit RGB bytes.

    Raises:
        BadPicture: the byte count does not fit the size.
    """
    expected = width * height * 3
    if len(data) != expected:
        raise BadPicture("data", f"{len(data)} bytes for {width}x{height} RGB24; expected {expected}")
    rgb = np.frombuffer(data, np.uint8).reshape(height, width, 3)
    return _convert(rgb, cv2.COLOR_RGB2YUV_I420, timestamp, arrived)


def bgra_from_frame(frame: Frame) -> Plane:
    """(H,W,4) uint8 BGRA of a Frame; opaque where it has no alpha plane, all zero where that is zero."""
    pixels = cv2.cvtColor(bgr_from_frame(frame), cv2.COLOR_BGR2BGRA)
    if frame.alpha is not None:
        pixels[..., 3] = frame.alpha
        # A chroma sample covers four pixels: beside the person it still colours the hidden ones.
        pixels[frame.alpha == 0] = 0
    return np.asarray(pixels, np.uint8)


def fit_cover(frame: Frame, width: int, height: int) -> Frame:
    """`frame` scaled to cover (width, height) and cut to it around its middle, plane by plane."""
    scale = max(width / frame.width, height / frame.height)
    kept = width / scale / frame.width, height / scale / frame.height
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    sizes = (width, height), chroma_size(width, height), chroma_size(width, height)
    planes = (
        cv2.resize(_middle(plane, *kept), size, interpolation=method)
        for plane, size in zip((frame.y, frame.u, frame.v), sizes, strict=True)
    )
    y, u, v = (np.asarray(plane, np.uint8) for plane in planes)
    return frame.with_planes(y, u, v)


def _middle(plane: Plane, across: float, down: float) -> Plane:
    """So much of a plane's width and height."""
    height, width = plane.shape
    columns, rows = max(1, round(width * across)), max(1, round(height * down))
    left, top = (width - columns) // 2, (height - rows) // 2
    return plane[top : top + rows, left : left + columns]


def usual_matrix(height: int) -> Matrix:
    """The matrix of a video file that names none: BT.709 from 720 rows on, else BT.601, as players assume."""
    return Matrix.BT709 if height >= 720 else Matrix.BT601


def yuv_from_rgb(red: int, green: int, blue: int, colors: Colors) -> tuple[int, int, int]:
    """The luma and chroma of a colour whose red, green and blue are 0..255."""
    y, u, v = (min(max(round(float(level)), 0), 255) for level in _from_rgb(colors) @ (red, green, blue, 1.0))
    return y, u, v


def recolored(frame: Frame, colors: Colors) -> Frame:
    """`frame` in other colours; itself if it has them already. Levels beyond 0..255 are clipped."""
    if frame.colors == colors:
        return frame
    (luma, luma_u, luma_v, luma_more), *chroma = _change(frame.colors, colors)
    u, v = (np.asarray(cv2.addWeighted(frame.u, by_u, frame.v, by_v, more), np.uint8) for _, by_u, by_v, more in chroma)
    # Grey is grey in every matrix: luma adds nothing to chroma, and grey chroma nothing to luma.
    grey = GREY * (luma_u + luma_v)
    levels = np.clip(np.rint(luma * np.arange(256) + luma_more + grey), 0, 255).astype(np.uint8)
    y = cv2.LUT(frame.y, levels)
    if frame.colors.matrix is not colors.matrix:
        added = cv2.addWeighted(frame.u, luma_u, frame.v, luma_v, -grey, dtype=cv2.CV_16S)
        added = cv2.resize(added, (2 * frame.u.shape[1], 2 * frame.u.shape[0]))[: frame.height, : frame.width]
        y = cv2.add(y, added, dtype=cv2.CV_8U)
    return replace(frame, y=np.asarray(y, np.uint8), u=u, v=v, colors=colors)


def _change(before: Colors, after: Colors) -> NDArray[np.float64]:
    """(3,4): Y, U and V in the colours `after` from Y, U and V in `before`, and 1."""
    return _from_rgb(after) @ np.linalg.inv(np.vstack((_from_rgb(before), (0, 0, 0, 1))))


def _from_rgb(colors: Colors) -> NDArray[np.float64]:
    """(3,4): Y, U and V from red, green, blue (0..255) and 1 (ITU-T H.273, 8.3)."""
    (red, blue), (black, luma, chroma) = colors.matrix.value, colors.range.value
    y = np.array((red, 1 - red - blue, blue))
    u, v = (np.array((0, 0, 1)) - y) / (2 * (1 - blue)), (np.array((1, 0, 0)) - y) / (2 * (1 - red))
    levels = np.vstack((luma * y, chroma * u, chroma * v)) / 255
    return np.column_stack((levels, (black, GREY, GREY)))
