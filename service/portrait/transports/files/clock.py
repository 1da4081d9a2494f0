"""Clocks: the times of packets and pictures, from whatever a source has to what an encoder takes."""

import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from math import ceil
from typing import Any

import av

BACKWARD = Fraction(1, 2)
"""Seconds by which a packet may be before the one it follows; more is a clock that was set back or restarted."""

FORWARD = Fraction(10)
"""Seconds by which a packet of a broadcast may be after the one it follows; more is a clock that was set anew."""

BROADCAST = 0x0200
"""FFmpeg's AVFMT_TS_DISCONT: a container whose clock may jump, such as MPEG-TS."""

FINEST_STEP = Fraction(1, 1000)
"""Seconds from one picture to the next where the source gives both the same time; Matroska can hold no less."""

TICKS = range(10_000, 100_001)
"""Per second, of an encoder's time base: fine enough for `FINEST_STEP` and for times off the source's own grid, and
coarse enough for MP4, which has 32 bits for the ticks from one picture to the next."""

BROADCAST_TICKS = 90_000
"""MPEG's; for sources whose own ticks are finer than `TICKS`."""

MOST_PER_SECOND = 120
"""Of a guessed rate: some containers give their clock's own."""


class Timeline:
    """Moves the times of a source's packets: the first is at 0, and when its clock is reset the rest continues.

    Each stream crosses such a point by itself, since their packets are interleaved only roughly, and all are moved by
    the same amount there, so that sound stays with the picture.
    """

    def __init__(self, source: av.container.InputContainer) -> None:
        start = source.start_time
        self._moves = [] if start is None else [-Fraction(start, av.time_base)]
        self._crossed: dict[int, int] = {}
        self._last: dict[int, Fraction] = {}
        self._end = Fraction(0)
        self._jumps = bool(source.format.flags & BROADCAST)

    def place(self, packet: "av.Packet[Any]") -> None:
        """Set the times of `packet` to those of the result; a packet without times is left as it is."""
        ticks = packet.pts if packet.dts is None else packet.dts
        if ticks is None or packet.time_base is None:
            return
        index, base = packet.stream.index, packet.time_base
        if not self._moves:
            self._moves.append(-Fraction(ticks if packet.pts is None else packet.pts) * base)
        at = self._moved(index, ticks * base)
        move = round(self._moves[self._crossed.get(index, 0)] / base)
        packet.dts = None if packet.dts is None else packet.dts + move
        packet.pts = None if packet.pts is None else packet.pts + move
        self._last[index] = at
        self._end = max(self._end, at + (packet.duration or 0) * base)

    def _moved(self, index: int, at: Fraction) -> Fraction:
        number = self._crossed.get(index, 0)
        placed, last = at + self._moves[number], self._last.get(index)
        if last is None or not (placed < last - BACKWARD or (self._jumps and placed > last + FORWARD)):
            return placed
        self._crossed[index] = number = number + 1
        if number == len(self._moves):
            self._moves.append(self._end - at)
        return at + self._moves[number]


class PictureTimes:
    """Gives every picture a time after the one before it.

    A picture with the time of the one before it, or an earlier one, comes `FINEST_STEP` after it. Bare H.264 has no
    times: its pictures follow each other at `rate`. A camera over RTSP has none before its first report (RFC 3550,
    section 6.4.1): such pictures at the start of a live source are left out.
    """

    def __init__(self, rate: Fraction, *, live: bool) -> None:
        self._rate, self._live = rate, live
        self._last: Fraction | None = None

    def timed(self, pictures: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """Those of `pictures` that have a time, on the encoder's time base."""
        for picture in pictures:
            at = None if picture.pts is None or picture.time_base is None else picture.pts * picture.time_base
            if at is None and self._last is None and self._live:
                continue
            if at is None:
                at = Fraction(0) if self._last is None else self._last + 1 / self._rate
            elif self._last is not None and at <= self._last:
                at = self._last + FINEST_STEP
            base = fine(picture.time_base)
            duration = (picture.duration or 0) * (picture.time_base or 0)
            picture.pts, picture.time_base, picture.duration = round(at / base), base, round(duration / base)
            self._last = picture.pts * base
            yield picture


def fine(time_base: Fraction | None) -> Fraction:
    """An encoder's time base for pictures on `time_base`: one that has each of its ticks, where `TICKS` allow."""
    ticks = TICKS.start if time_base is None else time_base.denominator
    return Fraction(1, ticks * ceil(TICKS.start / ticks) if ticks in range(TICKS.stop) else BROADCAST_TICKS)


def even_rate(video: av.VideoStream) -> Fraction:
    """Pictures per second of a video, where one number has to do."""
    average, guessed = video.average_rate or Fraction(0), video.guessed_rate or Fraction(0)
    rate = average if guessed > MOST_PER_SECOND and 0 < average < guessed / 2 else guessed or average
    return rate or Fraction(30)


class Pace:
    """Holds the pictures of a file back until their time, for a target that shows them as they come."""

    def __init__(self) -> None:
        self._began: float | None = None

    def wait(self, seconds: float) -> None:
        """Wait for the time of a picture, in seconds of the video."""
        if self._began is None:
            self._began = time.monotonic() - seconds
        time.sleep(max(0.0, self._began + seconds - time.monotonic()))
