"""Videos in, videos out: files, pipes, cameras and addresses, all through FFmpeg."""

import logging
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeAlias

import av
import cv2
import numpy as np

from portrait.errors import BadOption, BadPicture
from portrait.image.av_frame import av_from_frame, frame_from_av
from portrait.image.convert import usual_matrix
from portrait.image.frame import Frame, Plane
from portrait.transports.files.backend import Work

logger = logging.getLogger(__name__)

PIPE = "-"
MAX_PIXELS = 2**26
QUALITY = "18"
"""x264's constant rate factor; the eye hardly tells it from the original."""

TIMEOUT = (10.0, 10.0)
"""Seconds to open an address, and to wait for its next packet."""


Progress: TypeAlias = Callable[[int, int], None]
"""Is told the frames done and the frames expected (0: not known) with every packet; may raise Stopped."""


class Stopped(Exception):
    """Somebody has asked for the end, as an interrupt from the keyboard does."""


@dataclass(frozen=True, slots=True)
class Sink:
    """What a target is written as."""

    format: str | None = None
    """FFmpeg's name of the container; None: as the name's suffix says."""
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=lambda: {"crf": QUALITY, "preset": "veryfast"})
    sound: bool = True


DEVICE = "/dev/video"
"""What a camera's path begins with, a virtual one's as well."""

LIVE = {"crf": "23", "preset": "veryfast", "tune": "zerolatency"}
SINKS = {
    PIPE: Sink("yuv4mpegpipe", "rawvideo", {}, sound=False),
    "rtmp": Sink("flv", options=LIVE),
    "rtmps": Sink("flv", options=LIVE),
    "rtsp": Sink("rtsp", options=LIVE),
    "tcp": Sink("mpegts", options=LIVE),
    "udp": Sink("mpegts", options=LIVE),
    # A virtual camera (v4l2loopback): FFmpeg sets its format to planar 4:2:0 of the result's size by VIDIOC_S_FMT.
    DEVICE: Sink("v4l2", "rawvideo", {}, sound=False),
}
"""By `-`, scheme, or the beginning of a device's path."""


def is_live(place: str) -> bool:
    """Whether a source is endless, or a target no file: a pipe, a camera, an address."""
    return place == PIPE or "://" in place or place.startswith("/dev/")


def without_secrets(text: str) -> str:
    """A text without the user and the password that an address in it may hold: for messages, reports and logs."""
    return re.sub(r"://[^/\s'\"]*@", "://", text)


def process_video(source: str, target: str, work: Work, progress: Progress) -> int:
    """Every frame of a video, its sound copied as it is. Returns the number of frames.

    A place is the path of a file, `-` (standard input in whatever container FFmpeg knows by its first bytes, standard
    output as YUV4MPEG2), a camera (`/dev/video0`; as target a virtual one, which gets a file at its own speed) or an
    address (RTSP, RTMP, TCP, UDP). An endless source ends with Stopped, an interrupt from the keyboard, or when its
    other side is lost; what has come until then is written whole.

    Raises:
        BadPicture: the source is no video, or a file that is damaged.
        BadOption: the target's format cannot hold it.
        Stopped: `progress` has raised it, and the source is a file.
    """
    try:
        opened = _open_source(source)
    except (av.error.FFmpegError, OSError) as error:
        raise BadPicture("IN", without_secrets(f"{source}: no video: {error}")) from None
    sink = _sink(target)
    with opened:
        if not opened.streams.video:
            raise BadPicture("IN", without_secrets(f"{source}: has no video stream"))
        try:
            place = sys.stdout.buffer if target == PIPE else target
            with av.open(place, "w", format=sink.format) as output:
                paced = target.startswith(DEVICE) and not is_live(source)
                return _transcode(opened, output, sink, work, progress, endless=is_live(source), paced=paced)
        except (av.error.FFmpegError, ValueError) as error:
            raise BadOption("OUT", without_secrets(f"{target}: cannot be written: {error}")) from None


def _sink(target: str) -> Sink:
    if not is_live(target):
        return Sink()
    return SINKS.get(DEVICE if target.startswith(DEVICE) else target.partition("://")[0], Sink())


def _open_source(source: str) -> av.container.InputContainer:
    if source == PIPE:
        return av.open(sys.stdin.buffer, "r")
    if source.startswith(DEVICE):
        return av.open(source, "r", format="v4l2")
    if source.startswith("rtsp"):
        # Over UDP a camera's picture tears at the first lost packet.
        return av.open(source, "r", options={"rtsp_transport": "tcp"}, timeout=TIMEOUT)
    return av.open(source, "r", timeout=TIMEOUT if is_live(source) else None)


def _transcode(
    source: av.container.InputContainer,
    target: av.container.OutputContainer,
    sink: Sink,
    work: Work,
    progress: Progress,
    *,
    endless: bool,
    paced: bool,
) -> int:
    video = source.streams.video[0]
    video.thread_type = "AUTO"
    rate = video.average_rate or Fraction(30)
    expected = video.frames or int(float((source.duration or 0) / av.time_base) * float(rate))
    copies = {stream: target.add_stream_from_template(stream) for stream in source.streams.audio if sink.sound}
    encoder: Any = None
    done, clock, pace = 0, _Clock(rate, endless=endless), _Pace(paced)
    # Sound that comes before the first picture waits: no stream can be added once anything has been written, and the
    # size of the video is known from its first picture only.
    waiting: list[av.Packet[Any]] = []
    try:
        for packet in _packets(source, [video, *copies], endless=endless):
            if packet.stream in copies:
                if packet.dts is not None:  # the flushing packet at the end carries nothing
                    packet.stream = copies[packet.stream]
                    waiting.append(packet)
            else:
                for picture in clock.timed(_pictures(packet, endless=endless)):
                    result = work(_upright(picture))
                    if encoder is None:
                        encoder = _open_encoder(target, sink, result, rate, video.time_base)
                    pace.wait(result.arrived)
                    target.mux(encoder.encode(av_from_frame(_even(result))))
                    done += 1
            if encoder is not None:
                target.mux(waiting)
                waiting = []
            progress(done, expected)
    except (KeyboardInterrupt, Stopped):
        if not endless:
            raise
    if encoder is None:
        raise BadPicture("IN", "no picture of the video could be decoded")
    target.mux(encoder.encode())
    return done


def _packets(source: av.container.InputContainer, streams: list[Any], *, endless: bool) -> Iterator["av.Packet[Any]"]:
    """The packets of a source. Of an endless one as many as come: the other side may go at any time.

    Raises:
        BadPicture: a file that cannot be read to its end.
    """
    packets = source.demux(streams)
    while True:
        try:
            yield next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError) as error:
            if not endless:
                raise BadPicture("IN", f"{source.name}: cannot be read to its end: {error}") from error
            logger.warning(without_secrets(f"{source.name} is lost, what has come is written: {error}"))
            return


def _pictures(packet: "av.Packet[Any]", *, endless: bool) -> list[av.VideoFrame]:
    """What a packet decodes to; nothing, where an endless source was joined or torn in the middle."""
    try:
        return packet.decode()
    except av.error.InvalidDataError as error:
        if not endless:
            raise BadPicture("IN", f"a picture of the video is damaged: {error}") from error
        return []


class _Clock:
    """Gives every picture a time after the one before it.

    Bare H.264 has no times: its pictures follow each other at `rate`. A camera over RTSP has none before its first
    report (RFC 3550, section 6.4.1), and may set its clock back: such pictures of an endless source are left out.
    """

    def __init__(self, rate: Fraction, *, endless: bool) -> None:
        self._rate, self._endless = rate, endless
        self._last: int | None = None

    def timed(self, pictures: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """Those of `pictures` that have a time."""
        for picture in pictures:
            if picture.pts is None and (self._last is not None or not self._endless):
                picture.pts = self._next(picture.time_base)
            late = picture.pts is None or (self._last is not None and picture.pts <= self._last)
            if not (self._endless and late):
                self._last = picture.pts
                yield picture

    def _next(self, time_base: Fraction | None) -> int:
        step = 1 if time_base is None else max(1, round(1 / (self._rate * time_base)))
        return 0 if self._last is None else self._last + step


class _Pace:
    """Holds the pictures of a file up until their time, for a target that shows them as they come."""

    def __init__(self, paced: bool) -> None:
        self._paced = paced
        self._began: float | None = None

    def wait(self, seconds: float) -> None:
        """Wait for the time of a picture, in seconds of the video."""
        if not self._paced:
            return
        if self._began is None:
            self._began = time.monotonic() - seconds
        time.sleep(max(0.0, self._began + seconds - time.monotonic()))


def _open_encoder(
    target: av.container.OutputContainer, sink: Sink, frame: Frame, rate: Fraction, time_base: Fraction | None
) -> Any:
    encoder: Any = target.add_stream(sink.codec, rate=rate, options=dict(sink.options))
    encoder.width, encoder.height = frame.width - frame.width % 2, frame.height - frame.height % 2
    encoder.pix_fmt = "yuv420p"
    first = av_from_frame(frame)
    encoder.colorspace, encoder.color_range = first.colorspace, first.color_range
    if time_base is not None:
        encoder.time_base = time_base
    return encoder


def _upright(picture: av.VideoFrame) -> Frame:
    """A Frame turned as the display matrix says: phones write their videos lying on the side."""
    seconds = float(picture.time or 0.0)
    frame = frame_from_av(picture, MAX_PIXELS, seconds, usual_matrix(picture.height))
    turns = round(picture.rotation / 90) % 4
    if not turns:
        return frame
    y, u, v = (_turned(plane, turns) for plane in (frame.y, frame.u, frame.v))
    return frame.with_planes(y, u, v)


def _turned(plane: Plane, quarter_turns: int) -> Plane:
    codes = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
    return np.asarray(cv2.rotate(np.ascontiguousarray(plane), codes[quarter_turns]), np.uint8)


def _even(frame: Frame) -> Frame:
    """H.264 in 4:2:0 has even sizes only: the last odd row or column goes."""
    height, width = frame.height - frame.height % 2, frame.width - frame.width % 2
    chroma = slice(height // 2), slice(width // 2)
    return frame.with_planes(frame.y[:height, :width], frame.u[chroma], frame.v[chroma])
