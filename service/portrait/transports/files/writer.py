"""Writer: results into a target, with the tracks that go beside them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from typing import Any, Protocol, TypeAlias

import av
from av.codec.context import Flags

from portrait.errors import BadOption
from portrait.image.av_frame import MATRICES, av_from_frame
from portrait.image.convert import even
from portrait.image.frame import Frame
from portrait.transports.files.clock import Pace
from portrait.transports.files.places import (
    CAMERA,
    PIPE,
    ffmpeg_url,
    is_live,
    reason,
    standard_output,
    without_secrets,
)
from portrait.transports.files.reader import video_of
from portrait.transports.files.sinks import Sink, sink_of
from portrait.transports.files.tracks import Encoded, Track, add_track

Packet: TypeAlias = "av.Packet[Any]"

UNEVEN = 0x0400
"""FFmpeg's AVFMT_VARIABLE_FPS: a container with a time for every picture."""

NO_FILE = 0x0001
"""FFmpeg's AVFMT_NOFILE: pictures are passed on as they come."""

DECODED = -1
"""The place among the tracks of sound that is no stream of the source's container."""

AT_ONCE = {"flush_packets": "1"}
"""For a source that cannot be had again: FFmpeg would hold back 256 KB, half a minute of a small picture, which a power
cut would lose."""

OF_THE_FILE = ("major_brand", "minor_version", "compatible_brands", "encoder", "creation_software")
"""Metadata that describe the source's container, and would be wrong of the target's."""


class Origin(Protocol):
    """What a writer asks of the source of its pictures: a Reader, or a camera."""

    @property
    def live(self) -> bool:
        """Whether it cannot be had again."""

    @property
    def rate(self) -> Fraction:
        """Pictures per second, about."""

    @property
    def aspect(self) -> Fraction:
        """Width of a pixel by its height."""

    @property
    def last(self) -> av.VideoFrame | None:
        """The picture of the frame given last, for what a stream says beside its pixels."""

    @property
    def container(self) -> av.container.InputContainer | None:
        """Where its other streams and its metadata are; None: it has none."""

    def duration(self, frame: Frame) -> int:
        """How long the picture of `frame` is shown, in ticks of its time base; 0: not known."""


class Writer:
    """Encodes results into one target; to be closed, whole or not. Used by one thread.

    `place` is where it is written, `name` what messages call it.
    """

    def __init__(self, reader: Origin, place: str, name: str, *, paced: bool) -> None:
        self._reader, self._name = reader, name
        self._sink: Sink = sink_of(name)
        self._pace = Pace() if paced else None
        self._tracks: dict[int, Track] = {}
        self._sound: Encoded | None = None
        self._waiting: list[Packet] = []
        self.frames = 0
        """Results written; 0: nothing has been written at all."""
        self.notes: list[str] = []
        """What a user should know of the result."""
        with self._errors_as_bad_option():
            opened = standard_output() if place == PIPE else ffmpeg_url(place)
            options = self._sink.container_options | (AT_ONCE if reader.live else {})
            self._target = av.open(opened, "w", format=self._sink.format, container_options=options)
            self._encoder: Any = self._target.add_stream(
                self._sink.codec, rate=reader.rate, options=dict(self._sink.options)
            )
        flags = self._target.format.flags
        self._grid = None if flags & (UNEVEN | NO_FILE) else _Grid(reader.rate)

    def add_tracks(self) -> list[Any]:
        """Add a track for each stream of the source that the target can have; the streams to be read."""
        container, added = self._reader.container, []
        streams = [] if container is None else [*container.streams.audio, *container.streams.subtitles]
        for stream in streams if self._sink.sound else []:
            track, note = add_track(self._target, stream)
            self.notes += [note] if note else []
            if track is not None:
                self._tracks[stream.index] = track
                added.append(stream)
        return added

    def add_sound(self, rate: int, *, is_mono: bool) -> None:
        """Add a track for sound that is decoded elsewhere, before the first picture."""
        self._sound = Encoded(self._target, "aac", rate, is_mono=is_mono, metadata={})
        self._tracks[DECODED] = self._sound

    def write_sound(self, decoded: Sequence[av.AudioFrame]) -> None:
        """Write decoded sound at its times; none before the first picture."""
        if self._sound is not None and self.frames:
            with self._errors_as_bad_option():
                self._target.mux(list(self._sound.encoded(decoded)))

    def write(self, result: Frame) -> None:
        """Encode a result at its time."""
        duration = self._reader.duration(result)
        if self._pace is not None:
            self._pace.wait(result.arrived)
        with self._errors_as_bad_option():
            if not self.frames:
                self._start(result)
            for picture in self._pictures(result, duration):
                self._target.mux(self._encoder.encode(picture))
            self.frames += 1
            self._write_waiting()

    def write_beside(self, packet: Packet) -> None:
        """Write a packet of another stream of the source.

        Until the first picture it waits: no stream's size can be set once anything has been written.
        """
        self._waiting.append(packet)
        if self.frames:
            self._write_waiting()

    def finish(self) -> None:
        """Write what encoders hold back. Only then is the target whole."""
        with self._errors_as_bad_option():
            self._write_waiting()
            self._target.mux(self._encoder.encode())
            for track in self._tracks.values():
                self._target.mux(list(track.rest()))
            self._target.close()

    def close(self) -> None:
        """Close the target; whether it is whole, `finish` has said."""
        with suppress(av.error.FFmpegError, OSError):
            self._target.close()

    @property
    def damaged(self) -> int:
        """Packets of sound that could not be decoded."""
        return sum(track.damaged for track in self._tracks.values() if isinstance(track, Encoded))

    def _start(self, first: Frame) -> None:
        """Set what the pictures are, and write the header."""
        encoder, context = self._encoder, self._encoder.codec_context
        encoder.width, encoder.height = first.width - first.width % 2, first.height - first.height % 2
        encoder.pix_fmt = "yuv420p"
        context.time_base = first.timestamp.time_base if self._grid is None else 1 / self._reader.rate
        context.sample_aspect_ratio = self._reader.aspect
        context.flags |= int(Flags.frame_duration)
        _tag(context, first, self._reader)
        if (container := self._reader.container) is not None:
            encoder.metadata.update(_kept(video_of(container).metadata))
            self._target.metadata.update(_kept(container.metadata))
            if chapters := container.chapters():
                self._target.set_chapters(chapters)
        self._target.start_encoding()

    def _pictures(self, result: Frame, duration: int) -> Iterator[av.VideoFrame]:
        picture = av_from_frame(even(result))  # H.264 in 4:2:0 has even sizes only
        picture.duration = duration
        yield from [picture] if self._grid is None else self._grid.filled(picture)

    def _write_waiting(self) -> None:
        with self._errors_as_bad_option():
            for packet in self._waiting:
                self._target.mux(list(self._tracks[packet.stream.index].packets(packet)))
        self._waiting = []

    @contextmanager
    def _errors_as_bad_option(self) -> Iterator[None]:
        """Raise failures of the target as BadOption."""
        try:
            yield
        except (av.error.FFmpegError, ValueError, OSError) as error:
            if isinstance(error, BrokenPipeError) and self._name == PIPE:
                raise BrokenPipeError from None  # the command ends as programs in pipes do
            raise BadOption("OUT", without_secrets(f"{self._name}: cannot be written: {reason(error)}")) from None


class _Grid:
    """Puts pictures on an even grid, for containers with a rate and no times: the last one is repeated in a gap."""

    def __init__(self, rate: Fraction) -> None:
        self._rate = rate
        self._last: av.VideoFrame | None = None
        self._number = 0

    def filled(self, picture: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """What to write now that `picture` has come; nothing, where there is one at its place already."""
        seconds = (picture.pts or 0) * (picture.time_base or Fraction(0))
        number = round(seconds * self._rate)
        if self._last is not None and number < self._number:
            return
        while self._last is not None and self._number < number:
            yield self._placed(self._last, self._number)
        yield self._placed(picture, number)
        self._last = picture

    def _placed(self, picture: av.VideoFrame, number: int) -> av.VideoFrame:
        picture.pts, picture.time_base, picture.duration = number, 1 / self._rate, 1
        self._number = number + 1
        return picture


def _tag(context: Any, first: Frame, reader: Origin) -> None:
    """Say of the result's colours what the source says of its own."""
    picture, source = av_from_frame(first), reader.last
    context.colorspace, context.color_range = picture.colorspace, picture.color_range
    if source is not None:
        context.color_primaries, context.color_trc = source.color_primaries, source.color_trc
        if MATRICES.get(source.colorspace) is first.colors.matrix:  # which has several numbers
            context.colorspace = source.colorspace


def _kept(metadata: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in metadata.items() if name.lower() not in OF_THE_FILE}


def paced(source: str, target: str) -> bool:
    """Whether the pictures of a file go to a device that shows them as they come."""
    return target.startswith(CAMERA) and not is_live(source)
