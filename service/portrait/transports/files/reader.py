"""Reader: the pictures of a source in their order, and its other packets beside them."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

import av
import cv2
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

from portrait.errors import BadPicture
from portrait.image.av_frame import frame_from_av
from portrait.image.convert import usual_matrix
from portrait.image.frame import Frame, Plane
from portrait.transports.files.clock import PictureTimes, Timeline, even_rate
from portrait.transports.files.places import (
    CAMERA,
    PIPE,
    ffmpeg_url,
    is_live,
    reason,
    standard_input,
    without_secrets,
)

logger = logging.getLogger(__name__)

MAX_PIXELS = 2**26

TIMEOUT = (10.0, 10.0)
"""Seconds to open an address, and to wait for its next packet."""

HDR = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)
"""The transfer functions of HDR, PQ and HLG (ITU-R BT.2100)."""

Packet: TypeAlias = "av.Packet[Any]"

Progress: TypeAlias = Callable[[int, int], None]
"""Is told the frames done and the frames expected (0: not known) with every packet; may raise Stopped."""


class Stopped(Exception):
    """The end was asked for, as by an interrupt from the keyboard."""


def open_source(source: str) -> av.container.InputContainer:
    """The container at a place, which has a video.

    Raises:
        BadPicture: there is none.
    """
    try:
        opened = _open(source)
    except (av.error.FFmpegError, OSError) as error:
        raise BadPicture("IN", without_secrets(f"{source}: no video: {reason(error)}")) from None
    if not opened.streams.video:
        opened.close()
        raise BadPicture("IN", without_secrets(f"{source}: has no video stream"))
    return opened


def _open(source: str) -> av.container.InputContainer:
    if source == PIPE:
        return av.open(standard_input(), "r")
    return open_place(source)


def open_place(source: str, options: Mapping[str, str] = {}) -> av.container.InputContainer:
    """The container at a path, a device or an address; FFmpeg is told `options` besides what each kind needs.

    Raises:
        av.error.FFmpegError, OSError: it cannot be opened.
    """
    if source.startswith(CAMERA):
        return av.open(source, "r", format="v4l2", options=dict(options))
    if source.startswith("rtsp"):
        # Over UDP a camera's picture tears at the first lost packet.
        return av.open(source, "r", options={"rtsp_transport": "tcp", **options}, timeout=TIMEOUT)
    return av.open(ffmpeg_url(source), "r", options=dict(options), timeout=TIMEOUT if is_live(source) else None)


def video_of(container: av.container.InputContainer) -> Any:
    """The stream of the container's video, which is no picture of a cover where there is another; None: it has none."""
    cover = av.stream.Disposition.attached_pic
    videos = [video for video in container.streams.video if not video.disposition & cover]
    return next(iter(videos or container.streams.video), None)


class Reader:
    """Decodes one source. What is damaged is left out and counted; used by one thread."""

    def __init__(self, container: av.container.InputContainer, source: str) -> None:
        self.container, self.live, self._source = container, is_live(source), source
        self.video: Any = video_of(container)
        # Frame by frame the decoder would hold back what it has, and lose it with a damaged packet at the end.
        self.video.thread_type = "SLICE"
        self.rate = even_rate(self.video)
        self.done = 0
        """Pictures given."""
        self.damaged = 0
        """Packets left out, and pictures shown as far as they go."""
        self.cut = ""
        """Why the source could not be read to its end."""
        self.last: av.VideoFrame | None = None
        """The picture of the frame given last, for what a stream says beside its pixels."""
        self._turns = 0
        self._durations: dict[int, int] = {}
        self._mapper = VideoReformatter()

    @property
    def expected(self) -> int:
        """Pictures of the source; 0: not known."""
        seconds = float((self.container.duration or 0) / av.time_base)
        return int(self.video.frames or seconds * float(self.rate))

    @property
    def aspect(self) -> Fraction:
        """Width of a pixel by its height, of the pictures as they are given."""
        ratio = self.video.sample_aspect_ratio or Fraction(1)
        return 1 / ratio if self._turns % 2 else ratio

    def frames(self, others: Sequence[Any], beside: Callable[[Packet], None], progress: Progress) -> Iterator[Frame]:
        """The pictures, upright, each at a time after the one before it. Packets of `others` go to `beside`.

        A live source ends with Stopped, with an interrupt, or when its other side is lost.

        Raises:
            Stopped, KeyboardInterrupt: the source is a file.
            BadPicture: no picture could be decoded.
        """
        timeline, times = Timeline(self.container), PictureTimes(self.rate, live=self.live)
        try:
            for packet in self._packets([self.video, *others]):
                timeline.place(packet)
                if packet.stream.index != self.video.index:
                    beside(packet)
                else:
                    for picture in times.timed(self._pictures(packet)):
                        self.done += 1
                        yield self._frame(picture)
                progress(self.done, self.expected)
        except (KeyboardInterrupt, Stopped):
            if not self.live:
                raise
        if not self.done:
            why = f": {self.cut}" if self.cut else ""
            raise BadPicture("IN", without_secrets(f"{self._source}: no picture could be decoded{why}"))

    def duration(self, frame: Frame) -> int:
        """How long the picture of `frame` is shown, in ticks of its time base; 0: not known. To be asked once."""
        return self._durations.pop(frame.timestamp.ticks, 0)

    def _packets(self, streams: list[Any]) -> Iterator[Packet]:
        """The packets that can be read; what is behind a fault of the container cannot."""
        packets = self.container.demux(streams)
        while True:
            try:
                yield next(packets)
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError) as error:
                self.cut = reason(error)
                logger.info(without_secrets(f"{self._source}: the source is lost: {self.cut}"))
                return

    def _pictures(self, packet: Packet) -> list[av.VideoFrame]:
        try:
            pictures: list[av.VideoFrame] = packet.decode()
        except av.error.InvalidDataError:
            self.damaged += 1
            return []
        self.damaged += sum(picture.is_corrupt for picture in pictures)
        return pictures

    def _frame(self, picture: av.VideoFrame) -> Frame:
        """A Frame turned as the display matrix says: phones write their videos lying on the side."""
        self._turns = round(picture.rotation / 90) % 4
        self.last = picture = self._without_hdr(picture) if picture.color_trc in HDR else picture
        unknown = usual_matrix(picture.height)
        frame = frame_from_av(picture, MAX_PIXELS, arrived=float(picture.time or 0.0), unknown=unknown)
        self._durations[frame.timestamp.ticks] = picture.duration
        if not self._turns:
            return frame
        y, u, v = (_turned(plane, self._turns) for plane in (frame.y, frame.u, frame.v))
        return frame.with_planes(y, u, v)

    def _without_hdr(self, picture: av.VideoFrame) -> av.VideoFrame:
        """The picture in BT.709, tones and colours mapped: 8 bits are too few for HDR."""
        mapped = self._mapper.reformat(
            picture, format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG,
            dst_color_trc=ColorTrc.BT709, dst_color_primaries=ColorPrimaries.BT709,
        )  # fmt: skip
        mapped.pts, mapped.time_base, mapped.duration = picture.pts, picture.time_base, picture.duration
        return mapped


def _turned(plane: Plane, quarter_turns: int) -> Plane:
    codes = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
    return np.asarray(cv2.rotate(np.ascontiguousarray(plane), codes[quarter_turns]), np.uint8)
