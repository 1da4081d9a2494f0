"""Clips: short videos from files, decoded whole within a bound of memory."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from pathlib import Path

import av

from portrait.errors import BadPicture
from portrait.image.av_frame import frame_from_av
from portrait.image.convert import recolored, usual_matrix
from portrait.image.frame import CAMERA, Frame, check_size, i420_length


@dataclass(frozen=True, eq=False)  # without slots, which allow no weak references before Python 3.11
class Clip:
    """A short video, decoded, to be shown in a loop. Shared between sessions, never written to."""

    frames: Sequence[Frame]
    """One or more, all of one size."""
    rate: float
    """Frames per second."""

    def at(self, seconds: float) -> Frame:
        """The picture at a time, which may be counted from any origin."""
        return self.frames[int(seconds * self.rate) % len(self.frames)]


FORMATS: Mapping[str, str] = {".mp4": "mp4", ".webm": "webm"}
"""FFmpeg's name of the container by suffix. FFmpeg is told the format: left to find out by the first bytes, it would
take a playlist for a video, and open the addresses in it."""

LONGEST = 20.0
"""Seconds that a clip may last."""

RATE = 15.0
"""Frames per second that are kept, at most: a background need not move as smoothly as the person."""

KEPT_BYTES = 64 * 2**20
"""Of a clip's decoded frames. A longer clip is kept at a smaller size: 10 s at 728x410, 4 s at 1152x648."""

MAX_PIXELS = 1920 * 1088
MAX_BYTES = 64 * 2**20
MAX_FRAMES = int(LONGEST * 61)
"""Decoded, whatever is kept of them."""


def is_clip(path: Path) -> bool:
    """Whether the file's suffix is a clip's."""
    return path.suffix.lower() in FORMATS


def load_clip(path: Path) -> Clip:
    """Decode an MP4 or WebM file without its sound. A long clip takes seconds.

    Raises:
        BadPicture: not a video, damaged, longer than LONGEST, or with larger pictures than MAX_PIXELS.
        OSError: it cannot be read.
    """
    with _opened(path) as container:
        clip = _decode(container, path.name)
    if not clip.frames:
        raise BadPicture("background", f"{path.name} has no picture that can be decoded")
    return clip


def first_picture(path: Path) -> Frame:
    """Decode a clip's first picture only.

    Raises:
        BadPicture: not a video, its first picture is damaged, or it is larger than MAX_PIXELS.
        OSError: it cannot be read.
    """
    with _opened(path) as container:
        for picture in container.decode(container.streams.video[0]):
            return _kept(picture, *_kept_size(picture.width, picture.height, 1.0), 0)
    raise BadPicture("background", f"{path.name} has no picture that can be decoded")


@contextmanager
def _opened(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a file that has video. FFmpeg's errors in the block become BadPicture."""
    name, form = path.name, FORMATS[path.suffix.lower()]
    if (size := path.stat().st_size) > MAX_BYTES:
        raise BadPicture("background", f"{name} has {size} bytes; expected at most {MAX_BYTES}")
    try:
        with av.open(io.BytesIO(path.read_bytes()), "r", format=form) as container:
            if not container.streams.video:
                raise BadPicture("background", f"{name} has no video")
            video = container.streams.video[0]
            check_size(video.width, video.height, MAX_PIXELS, "background")
            yield container
    except (av.error.FFmpegError, ValueError) as error:
        raise BadPicture("background", f"{name} cannot be decoded as {form}: {error}") from None


def _decode(container: av.container.InputContainer, name: str) -> Clip:
    video = container.streams.video[0]
    rate = min(RATE, float(video.average_rate or RATE))
    # Files recorded by browsers do not say how long they are.
    seconds = float((container.duration or 0) / av.time_base) or LONGEST
    _check_length(seconds, name)
    width, height = _kept_size(video.width, video.height, max(1.0, seconds * rate))
    frames: list[Frame] = []
    for picture, number in _paced(container, video, rate, name):
        # A clip that is longer than its header says must not take more memory than was planned.
        if (len(frames) + 1) * i420_length(width, height) > KEPT_BYTES:
            raise BadPicture("background", f"{name} has more pictures than the {seconds:.1f} s its header says")
        frames.append(_kept(picture, width, height, number))
    return Clip(tuple(frames), rate)


def _kept(picture: av.VideoFrame, width: int, height: int, number: int) -> Frame:
    """A picture at the size at which it is kept, in memory of its own."""
    check_size(picture.width, picture.height, MAX_PIXELS, "background")
    small = picture.reformat(width, height)
    small.pts, small.time_base = number, Fraction(1)
    frame = frame_from_av(small, MAX_PIXELS, 0.0, usual_matrix(picture.height))
    # Converted to a camera's colours once, here, and not for every frame of a session.
    frame = recolored(frame, CAMERA)
    return frame.with_planes(frame.y.copy(), frame.u.copy(), frame.v.copy())


def _paced(
    container: av.container.InputContainer, video: av.video.stream.VideoStream, rate: float, name: str
) -> Iterator[tuple[av.VideoFrame, int]]:
    """The pictures to keep, `rate` of them per second, numbered."""
    kept = 0
    for count, picture in enumerate(container.decode(video)):
        seconds = picture.time if picture.time is not None else count / rate
        _check_length(seconds, name)
        if count >= MAX_FRAMES:
            raise BadPicture("background", f"{name} has more than {MAX_FRAMES} pictures")
        if seconds * rate + 0.01 >= kept:
            yield picture, kept
            kept += 1


def _check_length(seconds: float, name: str) -> None:
    if seconds > LONGEST:
        raise BadPicture("background", f"{name} is {seconds:.1f} s long; expected at most {LONGEST:g} s")


def _kept_size(width: int, height: int, frames: float) -> tuple[int, int]:
    """The largest even size of the same shape at which `frames` frames, and one more, are within KEPT_BYTES."""
    scale = min(1.0, sqrt(KEPT_BYTES / ((frames + 1) * 1.5 * width * height)))
    return max(2, int(width * scale) // 2 * 2), max(2, int(height * scale) // 2 * 2)
