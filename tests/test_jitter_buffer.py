"""The jitter buffer: a picture is complete with its last packet; lost packets are requested, then dropped in time."""

import copy
import random
import sys
from itertools import pairwise

import pytest
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.rtcrtpreceiver import NackGenerator
from aiortc.rtp import RtpPacket

from portrait.transports.webrtc.aiortc_patches import receiver as lost
from portrait.transports.webrtc.aiortc_patches.receiver import CAPACITY, LiveJitterBuffer, LostPackets


def picture_packets(rng: random.Random, count: int) -> list[RtpPacket]:
    """The packets of `count` pictures of one to six packets, the last of each with the marker."""
    packets, sequence = [], rng.randrange(65536)
    for number in range(count):
        size = rng.randint(1, 6)
        for part in range(size):
            packet = RtpPacket(
                payload_type=97, marker=int(part == size - 1), sequence_number=sequence, timestamp=3000 * number
            )
            packet._data = f"{number}.{part} ".encode()  # type: ignore[attr-defined]  # as aiortc's receiver adds it
            packets.append(packet)
            sequence = (sequence + 1) % 65536
    return packets


def delivered(buffer: JitterBuffer, packets: list[RtpPacket]) -> list[tuple[int, JitterFrame]]:
    """(the packet it came with, the picture) of everything the buffer gives back."""
    found = []
    for number, packet in enumerate(packets):
        _, frame = buffer.add(copy.copy(packet))
        if frame is not None:
            found.append((number, frame))
    return found


@pytest.mark.parametrize("seed", range(100))
def test_pictures_are_the_same_as_stock_in_the_same_order_and_never_later(seed: int) -> None:
    rng = random.Random(seed)
    packets = picture_packets(rng, 40)
    arriving = sorted(packets, key=lambda packet: packets.index(packet) + rng.uniform(0, seed % 5))
    late = [packet for packet in arriving if rng.random() < 0.05]
    # A lost packet comes again, as a retransmission, some packets later.
    for packet in late:
        place = arriving.index(packet)
        arriving.remove(packet)
        arriving.insert(place + rng.randint(1, 12), packet)
    stock = delivered(JitterBuffer(capacity=CAPACITY, is_video=True), arriving)
    live = delivered(LiveJitterBuffer(clock=Clock()), arriving)
    came = {frame.timestamp: (number, frame.data) for number, frame in live}
    assert [frame.timestamp for _, frame in live] == sorted(came)
    assert len(stock) >= 30
    for number, frame in stock:
        assert came[frame.timestamp][1] == frame.data
        assert came[frame.timestamp][0] <= number


def test_a_picture_is_there_with_its_last_packet() -> None:
    packets = picture_packets(random.Random(1), 10)
    ends = [number for number, packet in enumerate(packets) if packet.marker]
    assert [number for number, _ in delivered(LiveJitterBuffer(clock=Clock()), packets)] == ends
    assert len(delivered(JitterBuffer(capacity=CAPACITY, is_video=True), packets)) == len(ends) - 1


class Clock:
    """Stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def numbered(number: int) -> RtpPacket:
    return RtpPacket(payload_type=97, sequence_number=number % 65536)


def test_a_lost_packet_is_asked_for_until_it_comes() -> None:
    clock = Clock()
    requests, stock = LostPackets(clock), NackGenerator()
    asked, stock_asked = [], 0
    for number in (65533, 65534, 1, 2, 3, 4):
        stock_asked += stock.add(numbered(number))
        if requests.add(numbered(number)):
            asked.append((number, sorted(requests.missing)))
        clock.now += lost.ASK_SECONDS / 2
    # Over the end of the numbers, at once and then every other packet; stock asks once.
    assert asked == [(1, [0, 65535]), (3, [0, 65535])]
    assert stock_asked == 1
    assert requests.add(numbered(65535))
    assert requests.missing == {0}
    requests.add(numbered(0))
    clock.now += lost.ASK_SECONDS
    assert not requests.add(numbered(5))


def test_what_the_sender_has_forgotten_is_not_asked_for() -> None:
    clock = Clock()
    requests = LostPackets(clock)
    requests.add(numbered(0))
    assert requests.add(numbered(1000))
    assert min(requests.missing) == 1000 - 127
    for number in range(1001, 1200):
        clock.now += lost.ASK_SECONDS
        requests.add(numbered(number))
    assert requests.missing == set()


def test_what_has_been_asked_for_long_enough_is_given_up() -> None:
    clock = Clock()
    requests = LostPackets(clock)
    requests.add(numbered(0))
    requests.add(numbered(2))
    assert requests.missing == {1}
    asked = []
    for following in range(3, 60):
        clock.now += 0.05
        if requests.add(numbered(following)):
            asked.append(clock.now)
    assert len(asked) > 3
    assert max(asked) < 100 + lost.UNKNOWN_SECONDS + 0.05


@pytest.mark.parametrize("seconds", [lost.REORDER_SECONDS, lost.UNKNOWN_SECONDS])
def test_what_never_comes_holds_pictures_up_no_longer_than_it_is_awaited(seconds: float) -> None:
    """A cut of some seconds: more is lost than the sender remembers. Stock waits for 512 packets more."""
    clock, packets = Clock(), picture_packets(random.Random(1), 200)
    buffer = LiveJitterBuffer(lambda: seconds, clock=clock)
    assert len(delivered(buffer, packets[:60])) > 10
    cut, began = clock.now, None
    for packet in packets[260:]:
        clock.now += 0.01
        wanted, frame = buffer.add(copy.copy(packet))
        began = clock.now if wanted and began is None else began
        assert (frame is None) or (began is not None)
    assert began is not None
    # Where a retransmission may still come, a keyframe is asked for at half the time.
    assert began - cut == pytest.approx(min(seconds, max(lost.SHORTEST_WAIT, seconds / 2)), abs=0.05)
    assert len(delivered(JitterBuffer(CAPACITY, is_video=True), packets[260:])) > 10  # and they are whole


KEYFRAME = b"\x10\x00\x00\x9d\x01\x2a"
"""How a keyframe of VP8 begins (RFC 6386, section 9.1)."""


@pytest.mark.parametrize("hole", [0, 1])
def test_a_keyframe_ends_the_wait_for_what_does_not_come_again(hole: int) -> None:
    """Whatever part of the last picture before the loss is missing; the keyframe answers the request 0.1 s later."""
    clock = Clock()
    buffer = LiveJitterBuffer(lambda: lost.UNKNOWN_SECONDS, clock=clock)
    asked, shown, number, answer_at = [], [], 0, float("inf")
    for picture in range(40):
        is_answer = clock.now >= answer_at
        for part in range(3):
            packet = RtpPacket(
                payload_type=97, marker=int(part == 2), sequence_number=number % 65536, timestamp=3000 * picture
            )
            packet._data = KEYFRAME if part == 0 and (is_answer or not picture) else b"\x11" * 9  # type: ignore[attr-defined]
            number += 1
            if (picture, part) == (10, hole):
                continue
            wanted, frame = buffer.add(packet)
            if wanted:
                asked.append(clock.now)
                answer_at = clock.now + 0.1
            if frame is not None:
                shown.append((clock.now, frame))
        if is_answer:
            answer_at = float("inf")
        clock.now += 1 / 30
    gap, after = max(
        ((later - earlier, frame) for (earlier, _), (later, frame) in pairwise(shown)), key=lambda found: found[0]
    )
    assert len(asked) == 1
    assert gap < lost.UNKNOWN_SECONDS
    assert after.data.startswith(KEYFRAME)
    assert shown[-1][1].timestamp == 39 * 3000


def test_only_the_broken_picture_is_given_up() -> None:
    clock, packets = Clock(), picture_packets(random.Random(2), 20)
    buffer = LiveJitterBuffer(clock=clock)
    hole = next(n for n, packet in enumerate(packets) if packet.timestamp == 15_000 and not packet.marker)
    del packets[hole]
    found = []
    for packet in packets:
        clock.now += 0.02
        _, frame = buffer.add(packet)
        if frame is not None:
            found.append(frame.timestamp // 3000)
    assert found == [number for number in range(found[-1] + 1) if number != 5]
    assert len(found) > 10


def test_a_short_round_trip_shortens_the_wait_and_a_long_one_lengthens_it() -> None:
    for seconds, expected in ((0.005, lost.SHORTEST_WAIT), (0.1, 0.4), (0.6, lost.GIVE_UP_SECONDS)):
        clock = Clock()
        requests = LostPackets(clock)
        assert requests.patience == lost.UNKNOWN_SECONDS
        requests.add(numbered(0))
        for number in range(2, 20, 2):
            requests.add(numbered(number))
            clock.now += seconds
            requests.add(numbered(number - 1))
        assert requests.patience == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("jump", [200, 5000, 32_767, 40_000])
def test_a_jump_of_sequence_numbers_costs_no_more_than_the_window(jump: int) -> None:
    """A packet that jumped by 32,767 took 23 ms of the event loop."""
    requests, buffer, number = LostPackets(), LiveJitterBuffer(clock=Clock()), 0
    packets = []
    for _ in range(200):
        number = (number + jump) % 65536
        packet = RtpPacket(payload_type=97, sequence_number=number, timestamp=number)
        packet._data = b"x"  # type: ignore[attr-defined]
        packets.append(packet)
    steps = 0

    def count(*_: object) -> object:
        nonlocal steps
        steps += 1
        return count

    sys.settrace(count)  # lines, not seconds: a busy machine counts as many
    try:
        for packet in packets:
            requests.add(packet)
            buffer.add(packet)
    finally:
        sys.settrace(None)
    assert steps / len(packets) < 20 * CAPACITY


@pytest.mark.parametrize("back", [99, 100, 101, 130, 300, CAPACITY - 1, CAPACITY, CAPACITY + 1, 5000, 32767])
def test_a_jump_back_starts_anew_and_holds_nobody_up(back: int) -> None:
    """The buffer empties itself; what was newest before is not in it any more and is not looked for."""
    clock = Clock()
    buffer = LiveJitterBuffer(clock=clock)
    packets = picture_packets(random.Random(back), 60)
    delivered(buffer, packets[:80])
    first = (packets[79].sequence_number - back) % 65536
    again = [copy.copy(packet) for packet in picture_packets(random.Random(1), 400)]
    for number, packet in enumerate(again):
        packet.sequence_number = (first + number) % 65536
        packet.timestamp += 500_000
    del again[3]
    found = 0
    for packet in again:
        clock.now += 0.01
        found += buffer.add(packet)[1] is not None
    assert found > 100


def test_padding_is_no_picture_and_ends_none() -> None:
    packets = picture_packets(random.Random(3), 30)
    sequence, padded = packets[0].sequence_number, []
    for number, packet in enumerate(packets):
        for _ in range(number % 3):
            empty = RtpPacket(payload_type=97, sequence_number=sequence, timestamp=packet.timestamp - 3000)
            empty._data = b""  # type: ignore[attr-defined]
            padded.append(empty)
            sequence = (sequence + 1) % 65536
        moved = copy.copy(packet)
        moved.sequence_number = sequence
        padded.append(moved)
        sequence = (sequence + 1) % 65536
    plain = [(frame.timestamp, frame.data) for _, frame in delivered(LiveJitterBuffer(clock=Clock()), packets)]
    assert [(frame.timestamp, frame.data) for _, frame in delivered(LiveJitterBuffer(clock=Clock()), padded)] == plain


def test_padding_does_not_replace_what_has_come() -> None:
    packets = [packet for packet in picture_packets(random.Random(3), 30) if packet.timestamp < 9000]
    buffer, found = LiveJitterBuffer(clock=Clock()), []
    for packet in packets:
        _, frame = buffer.add(packet)
        empty = copy.copy(packet)
        empty._data = b""  # type: ignore[attr-defined]
        _, other = buffer.add(empty)
        found += [each.data for each in (frame, other) if each is not None]
    assert found == [frame.data for _, frame in delivered(LiveJitterBuffer(clock=Clock()), packets)]


def test_keyframes_are_asked_for_twice_a_second_at_most() -> None:
    clock = Clock()
    buffer = LiveJitterBuffer(clock=clock)
    asked = 0
    for packet in picture_packets(random.Random(4), 100):
        clock.now += 0.01
        buffer.want_keyframe()
        asked += buffer.add(packet)[0]
    assert 2 <= asked <= 2 * (clock.now - 100) + 1
