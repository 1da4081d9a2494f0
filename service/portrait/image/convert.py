"""Frames to and from other pixels: BGR, BGRA, RGB, packed I420; to other colours, and to another size.

Frames made here have the colours of a camera, BT.601 in limited range; a frame with others is converted rightly.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

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
    Planes,
    Timestamp,
    chroma_size,
    i420_length,
    split_i420,
)

Rows: TypeAlias = Callable[[int, int], Plane]
"""(rows, width, 3 or 4) uint8, RGB or RGBA, of a picture's rows from the first number up to the second."""

STRIP_PIXELS = 2**20
"""Converted at once. Frames up to 720p are one strip."""

RED_FIRST: Mapping[int, int] = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}
"""OpenCV's conversions, by the number of channels."""

ORIENTATIONS: Mapping[int, tuple[bool, int | None]] = {
    2: (False, 1),
    3: (False, -1),
    4: (False, 0),
    5: (True, None),
    6: (True, 1),
    7: (True, -1),
    8: (True, 0),
}
"""Of EXIF: whether rows become columns, and how OpenCV then flips (0 upside down, 1 left to right, -1 both)."""


def frame_from_bgr(pixels: Plane, timestamp: Timestamp, arrived: float) -> Frame:
    """A Frame of (H,W,3) uint8 BGR; odd sizes too."""
    return _frame_from(pixels.__getitem__, cv2.COLOR_BGR2YUV_I420, pixels.shape[1], pixels.shape[0], timestamp, arrived)


def frame_from_rows(rows: Rows, width: int, height: int, timestamp: Timestamp, arrived: float) -> Frame:
    """A Frame of RGB or RGBA, asked for in strips, from top to bottom; with RGBA it has an alpha.

    Pixels of alpha 0 are grey: what was erased is often still in the file. The arrays that `rows` returns are changed.
    """
    alpha: Plane | None = None

    def strip(part: slice) -> Plane:
        nonlocal alpha
        pixels = rows(part.start, part.stop)
        if pixels.shape[2] == 3:
            return pixels
        if alpha is None:
            alpha = np.empty((height, width), np.uint8)
        alpha[part] = pixels[..., 3]
        pixels[alpha[part] == 0] = GREY
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), np.uint8)

    frame = _frame_from(strip, cv2.COLOR_RGB2YUV_I420, width, height, timestamp, arrived)
    return replace(frame, alpha=alpha)


def _frame_from(
    strip: Callable[[slice], Plane], code: int, width: int, height: int, timestamp: Timestamp, arrived: float
) -> Frame:
    parts = list(strips(width, height))
    if len(parts) == 1:
        return _convert(strip(parts[0]), code, timestamp, arrived)
    frame = _new_frame(width, height, timestamp, arrived)
    for part in parts:
        half, made = _halved(part), _convert(strip(part), code, timestamp, arrived)
        frame.y[part], frame.u[half], frame.v[half] = made.y, made.u, made.v
    return frame


def strips(width: int, height: int) -> Iterator[slice]:
    """Parts of the rows, of STRIP_PIXELS at most, all but the last of an even number."""
    rows = max(2, STRIP_PIXELS // width // 2 * 2)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def _halved(part: slice) -> slice:
    return slice(part.start // 2, (part.stop + 1) // 2)


def _new_frame(width: int, height: int, timestamp: Timestamp, arrived: float) -> Frame:
    chroma = chroma_size(width, height)[::-1]
    y, u, v = np.empty((height, width), np.uint8), np.empty(chroma, np.uint8), np.empty(chroma, np.uint8)
    return Frame(y, u, v, timestamp, arrived)


def _convert(pixels: Plane, code: int, timestamp: Timestamp, arrived: float) -> Frame:
    height, width = pixels.shape[:2]
    if height % 2 or width % 2:
        # OpenCV converts even sizes only: repeat the last row or column, then cut the planes back.
        border = cv2.copyMakeBorder(pixels, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        pixels = np.asarray(border, np.uint8)
    packed = np.asarray(cv2.cvtColor(pixels, code), np.uint8)
    y, u, v = split_i420(packed.reshape(-1), pixels.shape[1], pixels.shape[0])
    return Frame(y[:height, :width], u, v, timestamp, arrived)


def bgr_from_frame(frame: Frame, top: int = 0, bottom: int | None = None) -> Plane:
    """(H,W,3) uint8 BGR of a Frame, or of its rows from `top`, an even number, up to `bottom`; odd sizes too."""
    part = slice(top, frame.height if bottom is None else bottom)
    pixels: Plane = np.empty((part.stop - top, frame.width, 3), np.uint8)
    for strip in strips(frame.width, part.stop - top):
        _bgr_into(pixels[strip], frame, slice(top + strip.start, top + strip.stop))
    return pixels


def _bgr_into(pixels: Plane, frame: Frame, part: slice) -> None:
    half = _halved(part)
    strip = recolored(replace(frame, y=frame.y[part], u=frame.u[half], v=frame.v[half], alpha=None), CAMERA)
    width, height = strip.width + strip.width % 2, strip.height + strip.height % 2
    packed: Plane = np.empty(i420_length(width, height), np.uint8)
    y, u, v = split_i420(packed, width, height)
    y[: strip.height, : strip.width] = strip.y
    y[strip.height :, : strip.width] = strip.y[-1]
    y[:, strip.width :] = y[:, strip.width - 1 : strip.width]
    u[:], v[:] = strip.u, strip.v
    i420 = packed.reshape(height * 3 // 2, width)
    if (width, height) == (strip.width, strip.height):
        cv2.cvtColor(i420, cv2.COLOR_YUV2BGR_I420, dst=pixels)
    else:
        pixels[:] = cv2.cvtColor(i420, cv2.COLOR_YUV2BGR_I420)[: strip.height, : strip.width]


def frame_from_i420(data: bytes, width: int, height: int, timestamp: Timestamp, arrived: float) -> Frame:
    """A Frame over packed I420 bytes, without copying them.

    Raises:
        BadPicture: the byte count does not fit the size.
    """
    expected = i420_length(width, height)
    if len(data) != expected:
        raise BadPicture("data", f"got {len(data)} bytes for {width}x{height} I420, expected {expected}")
    return Frame(*split_i420(np.frombuffer(data, np.uint8), width, height), timestamp, arrived)


def frame_from_rgb24(data: bytes, width: int, height: int, timestamp: Timestamp, arrived: float) -> Frame:
    """A Frame of packed 8-bit RGB bytes.

    Raises:
        BadPicture: the byte count does not fit the size.
    """
    expected = width * height * 3
    if len(data) != expected:
        raise BadPicture("data", f"got {len(data)} bytes for {width}x{height} RGB24, expected {expected}")
    rgb = np.frombuffer(data, np.uint8).reshape(height, width, 3)
    return _convert(rgb, cv2.COLOR_RGB2YUV_I420, timestamp, arrived)


def bgra_from_frame(frame: Frame, top: int = 0, bottom: int | None = None) -> Plane:
    """(H,W,4) uint8 BGRA, as `bgr_from_frame`; opaque where it has no alpha plane, all zero where that is zero."""
    part = slice(top, frame.height if bottom is None else bottom)
    pixels: Plane = np.empty((part.stop - top, frame.width, 4), np.uint8)
    for strip in strips(frame.width, part.stop - top):
        rows = slice(top + strip.start, top + strip.stop)
        cv2.cvtColor(bgr_from_frame(frame, rows.start, rows.stop), cv2.COLOR_BGR2BGRA, dst=pixels[strip])
        if frame.alpha is not None:
            pixels[strip, :, 3] = frame.alpha[rows]
            # A chroma sample covers four pixels: beside the person it still colours the hidden ones.
            pixels[strip][frame.alpha[rows] == 0] = 0
    return pixels


def pixels_of(frame: Frame, top: int = 0, bottom: int | None = None) -> Plane:
    """(H,W,4) uint8 BGRA of a Frame with alpha, (H,W,3) BGR of one without; rows as in `bgr_from_frame`."""
    return (bgr_from_frame if frame.alpha is None else bgra_from_frame)(frame, top, bottom)


def opaque_pixels_of(frame: Frame) -> Plane:
    """(H,W,3) uint8 BGR of a Frame, black where its alpha is 0."""
    if frame.alpha is None:
        return bgr_from_frame(frame)
    pixels: Plane = np.empty((frame.height, frame.width, 3), np.uint8)
    for strip in strips(frame.width, frame.height):
        cv2.cvtColor(bgra_from_frame(frame, strip.start, strip.stop), cv2.COLOR_BGRA2BGR, dst=pixels[strip])
    return pixels


def rgb_from_pixels(pixels: Plane) -> Plane:
    """RGB or RGBA uint8 of BGR or BGRA."""
    return np.asarray(cv2.cvtColor(pixels, RED_FIRST[pixels.shape[2]]), np.uint8)


def rgb_of(frame: Frame, top: int = 0, bottom: int | None = None) -> Plane:
    """As `pixels_of`, with red first."""
    return rgb_from_pixels(pixels_of(frame, top, bottom))


def pack_rgb24(frame: Frame) -> bytes:
    """The frame as 8-bit RGB, without its alpha."""
    return _packed(replace(frame, alpha=None), 3)


def pack_rgba32(frame: Frame) -> bytes:
    """The frame as 8-bit RGBA; opaque where it has no alpha plane, all zero where that is zero."""
    return _packed(frame, 4)


def _packed(frame: Frame, channels: int) -> bytes:
    rows = bgr_from_frame if channels == 3 else bgra_from_frame
    # Converted into the memory of the bytes itself: a copy of the largest picture would take 100 MB.
    buffer = io.BytesIO()
    buffer.seek(frame.height * frame.width * channels - 1)
    buffer.write(b"\0")
    with buffer.getbuffer() as view:
        pixels = np.frombuffer(view, np.uint8).reshape(frame.height, frame.width, channels)
        for strip in strips(frame.width, frame.height):
            cv2.cvtColor(rows(frame, strip.start, strip.stop), RED_FIRST[channels], dst=pixels[strip])
        del pixels  # the memory is not given away while an array looks into it
    return buffer.getvalue()


def hidden(frame: Frame, shown: Plane, grey: int) -> Frame:
    """`frame` with the alpha `shown`, (H,W) uint8, and its pixels of a grey of 0..255 where that is 0."""
    # A chroma sample belongs to four pixels and is kept if any of them shows: the largest of a pixel and of those
    # right, below, and right below.
    any_of_four = np.asarray(cv2.dilate(shown, np.ones((2, 2), np.uint8), anchor=(0, 0)), np.uint8)
    chroma = np.ascontiguousarray(any_of_four[::2, ::2])
    y = _where(shown, frame.y, frame.colors.luma(grey))
    return frame.with_planes(y, _where(chroma, frame.u, GREY), _where(chroma, frame.v, GREY), shown)


def _where(shown: Plane, plane: Plane, otherwise: int) -> Plane:
    return np.asarray(cv2.copyTo(plane, shown, np.full_like(plane, otherwise)), np.uint8)


def flattened(frame: Frame) -> Frame:
    """`frame` without its alpha, over grey."""
    if frame.alpha is None:
        return frame
    levels = frame.colors.luma(GREY), GREY, GREY
    y, u, v = (np.full_like(plane, level) for plane, level in zip((frame.y, frame.u, frame.v), levels, strict=True))
    return laid_over((y, u, v), frame, frame.alpha)


def laid_over(behind: Planes, frame: Frame, share: Plane) -> Frame:
    """`frame` over planes of its own sizes, which become the result's, with (H,W) uint8 of its share in each pixel."""
    for background, plane in zip(behind, (frame.y, frame.u, frame.v), strict=True):
        taken = cv2.resize(share, (plane.shape[1], plane.shape[0]), interpolation=cv2.INTER_LINEAR)
        shown = cv2.multiply(plane, taken, scale=1 / 255)
        rest = cv2.multiply(background, cv2.bitwise_not(taken), scale=1 / 255)
        cv2.add(shown, rest, dst=background)
    return frame.with_planes(*behind)


def turned(frame: Frame, orientation: int) -> Frame:
    """`frame` turned as an EXIF orientation of 1 (not at all) to 8 says (JEITA CP-3451, tag 0x0112).

    Numbers beyond are taken for 1.
    """
    transposed, flip = ORIENTATIONS.get(orientation, (False, None))
    if not transposed and flip is None:
        return frame

    def turn(plane: Plane) -> Plane:
        made = cv2.transpose(plane) if transposed else plane
        return np.asarray(made if flip is None else cv2.flip(made, flip), np.uint8)

    full = frame.full_size
    return replace(
        frame.with_planes(
            turn(frame.y), turn(frame.u), turn(frame.v), None if frame.alpha is None else turn(frame.alpha)
        ),
        full_size=full[::-1] if full and transposed else full,
    )


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
    """The middle of a plane: the fractions `across` of its width and `down` of its height."""
    height, width = plane.shape
    columns, rows = max(1, round(width * across)), max(1, round(height * down))
    left, top = (width - columns) // 2, (height - rows) // 2
    return plane[top : top + rows, left : left + columns]


def even(frame: Frame) -> Frame:
    """The frame without its last row and column where their number is odd; the planes are views."""
    width, height = frame.width & ~1, frame.height & ~1
    if (width, height) == (frame.width, frame.height):
        return frame
    chroma = frame.u[: height // 2, : width // 2], frame.v[: height // 2, : width // 2]
    return frame.with_planes(frame.y[:height, :width], *chroma)


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
