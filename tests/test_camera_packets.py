"""A camera's times on one line, and the bounds of what waits to be decoded."""

from fractions import Fraction
from itertools import pairwise
from typing import Any

import av

from portrait.transports.cameras.packets import MOST_PACKETS, Backlog, MediaClock

BASE = Fraction(1, 90_000)


class Now:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def packet(seconds: float | None, *, key: bool = False, size: int = 10) -> Any:
    made: Any = av.Packet(bytes(size))
    made.time_base = BASE
    if seconds is not None:
        made.pts = made.dts = round(seconds / BASE)
    made.is_keyframe = key
    return made


def placed(clock: MediaClock, *times: float | None) -> list[float]:
    return [round(float(clock.place(packet(each))), 3) for each in times]


def test_times_keep_a_cameras_intervals_and_never_jump() -> None:
    now = Now()
    clock = MediaClock(now)
    assert placed(clock, 5000.0, 5000.04, 5000.08) == [0.001, 0.041, 0.081]
    now.seconds += 2.0
    assert placed(clock, 5002.0) == [2.001], "what a camera says counts, not when it arrives"
    now.seconds += 1.0
    assert placed(clock, 7.0, 7.04) == [3.0, 3.04], "its clock was set anew: the time of arrival counts once"
    now.seconds += 10.0
    clock.reconnected()
    assert placed(clock, 7.02, 7.06) == [13.0, 13.04]


def test_a_burst_without_times_has_rising_ones() -> None:
    clock = MediaClock(Now())
    times = placed(clock, *[None] * 5, 90.0)
    assert all(before < after for before, after in pairwise(times))


def test_nobody_watches_a_backlog_of_more_than_the_last_pictures_since_a_keyframe() -> None:
    now = Now()
    backlog = Backlog(now)
    for number in range(100):
        now.seconds += 0.04
        backlog.put(packet(0.04 * number, key=number % 25 == 0), watched=False)
    assert len(backlog._packets) == 25
    backlog.put(packet(4.0, key=False), watched=True)
    assert len(backlog._packets) == 26, "a viewer that comes now sees a picture at once"
    now.seconds += 1.1
    backlog.put(packet(4.1), watched=True)
    assert not backlog._packets, "decoding is a second behind: the newest keyframe is awaited"
    backlog.put(packet(4.2), watched=True)
    backlog.put(packet(4.3, key=True), watched=True)
    assert [each.is_keyframe for each in backlog._packets] == [True]
    assert backlog.take_lost() == 28


def test_a_backlog_has_a_bound_whatever_comes() -> None:
    backlog = Backlog(Now())
    backlog.put(packet(0.0, key=True), watched=False)
    for number in range(2 * MOST_PACKETS):
        backlog.put(packet(number / 25), watched=False)
        assert len(backlog._packets) <= MOST_PACKETS
    backlog.put(packet(0.0, key=True), watched=False)
    for _ in range(20):
        backlog.put(packet(0.0, key=True, size=2**20), watched=True)
        assert backlog._bytes <= 8 * 2**20
