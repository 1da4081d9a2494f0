"""Viewers of one stream share its encoding, and one whose line is bad does not spoil it for the others."""

import asyncio
import time
from asyncio import timeout
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from fractions import Fraction
from unittest.mock import patch

import numpy as np
import pytest
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from portrait.admission.capacity import Capacity, Limits, StreamLoad
from portrait.admission.cost_model import CostModel, encoding_demand
from portrait.admission.quality import Quality
from portrait.errors import OutOfCpu
from portrait.image.convert import frame_from_bgr
from portrait.image.frame import Frame, Timestamp
from portrait.metrics import Metrics
from portrait.sessions.broadcasts import Broadcast
from portrait.sessions.registry import Sessions
from portrait.transports.webrtc import encodings, whep
from portrait.transports.webrtc.aiortc_patches.video_codecs import EncodedPicture, PictureEncoder
from portrait.transports.webrtc.encodings import KEYFRAME_SECONDS, MOST_WAITING, Encoding, Encodings, Subscription
from portrait.workers.shared_state import SharedState
from tests.fakes import FakeModel, full_mask, only
from tests.people import Clip, room
from tests.rtc import Viewer, fake_service
from tests.whip import publisher, shown, watcher

__all__ = ["shown"]  # a fixture

VP8 = RTCRtpCodecParameters("video/VP8", 90_000, payloadType=97)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def make_frame(number: int) -> Frame:
    picture = np.roll(room(64, 48), number, axis=1)
    return frame_from_bgr(picture, Timestamp(3000 * number, Fraction(1, 90_000)), time.monotonic())


def subscription() -> Subscription:
    return Subscription(asyncio.get_running_loop().create_future())


@asynccontextmanager
async def watched(shown: Clip, count: int) -> AsyncIterator[list[Viewer]]:
    """So many viewers of a stream."""
    async with fake_service(FakeModel(full_mask)) as (url, _), AsyncExitStack() as stack:
        await (await stack.enter_async_context(publisher(url, shown))).connect("/whip/desk")
        watching = [await stack.enter_async_context(watcher(url)) for _ in range(count)]
        for one in watching:
            await one.connect("/whep/desk")
            await one.frame()
        yield watching


def encodings_running() -> int:
    return sum(task.get_name() == "webrtc-encoding" for task in asyncio.all_tasks())


async def test_a_picture_is_encoded_once_for_all_viewers_and_each_gets_all_of_them(
    shown: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: dict[int, int] = {}
    stock = PictureEncoder.encode

    def count(self: PictureEncoder, frame: Frame) -> EncodedPicture:
        encoded[frame.timestamp.ticks] = encoded.get(frame.timestamp.ticks, 0) + 1
        return stock(self, frame)

    monkeypatch.setattr(Subscription, "target_bitrate", 0)  # a busy machine's lines have any estimate
    with patch.object(PictureEncoder, "encode", count):
        async with watched(shown, 3) as watching:
            seen = [[(await one.frame()).pts for _ in range(20)] for one in watching]
    assert set(encoded.values()) == {1}
    for times in seen:
        assert len(set(times)) == len(times)


async def test_keyframes_are_made_once_per_interval_however_many_are_asked_for(threads: ThreadPoolExecutor) -> None:
    broadcast, encoding = Broadcast("desk"), Encoding(VP8, threads, StreamLoad(encoding_demand(), 0.0))
    running = asyncio.create_task(encoding.run(broadcast, "composite"))
    content, *asking = [subscription() for _ in range(4)]
    for each in (content, *asking):
        encoding.add(each)
    await asyncio.sleep(0)
    began = time.monotonic()
    kinds: list[bool] = []
    async with timeout(60):
        while sum(kinds) < 2:
            broadcast.show({"composite": make_frame(len(kinds))})
            kinds.append((await content.get()).is_keyframe)
            for each in asking:
                each.want_keyframe()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert time.monotonic() - began >= KEYFRAME_SECONDS
    assert kinds[0]
    assert len(kinds) > 2


async def test_a_viewer_that_is_not_sent_to_continues_with_a_keyframe_and_keeps_little() -> None:
    one, size = subscription(), (64, 48)
    one.put(EncodedPicture([b"delta"], 0, False, 0.0, size))
    one.put(EncodedPicture([b"key"], 1, True, 0.0, size))
    for number in range(2, MOST_WAITING + 4):
        one.put(EncodedPicture([b"delta"], number, False, 0.0, size))
    one.put(EncodedPicture([b"key"], 99, True, 0.0, size))
    one.put(EncodedPicture([b"delta"], 100, False, 0.0, size))
    assert [(await one.get()).timestamp for _ in range(2)] == [99, 100]


@pytest.mark.parametrize(
    ("estimates", "rate"),
    [
        ([], 0),
        ([0], 0),
        ([700], 700),
        ([700, 0, 900], 700),
        ([5000, 3000], 1500),
        ([300, 1000], 1000),
        ([1, 2, 800], 800),
    ],
)
def test_the_slowest_line_sets_the_rate_unless_it_carries_much_less(estimates: list[int], rate: int) -> None:
    assert encodings.common_rate(estimates, 1500) == rate


async def test_a_viewer_with_a_bad_line_gets_an_encoding_of_its_own_and_comes_back(
    shown: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("CHECK_SECONDS", 0.05), ("BAD_SECONDS", 0.1), ("GOOD_SECONDS", 0.1)):
        monkeypatch.setattr(whep, name, seconds)
    monkeypatch.setattr(Subscription, "target_bitrate", 0)  # a busy machine's lines have any estimate
    bad: set[str] = set()

    async def lost(self: whep.Viewer) -> float:
        return 0.3 if self.id in bad else 0.0

    monkeypatch.setattr(whep.Viewer, "_lost", lost)
    async with watched(shown, 2) as watching, timeout(60):
        for wanted in (1, 2, 1):
            if wanted == 2:
                bad.add(watching[1].location.rpartition("/")[2])
            else:
                bad.clear()
            while encodings_running() != wanted:
                await asyncio.gather(*(one.frame() for one in watching))
            for _ in range(10):  # it has pictures all the while, and so have the others
                await asyncio.gather(*(one.frame() for one in watching))
            assert encodings_running() == wanted


async def test_an_encoding_of_its_own_is_admitted_like_a_stream(threads: ThreadPoolExecutor) -> None:
    shared, metrics = SharedState(), Metrics()
    costs = CostModel(dict.fromkeys(("segment fake", "encode vp8"), (0.001, 0.001, 0.001)), "fake", {})
    capacity = Capacity(costs, shared, metrics, Limits(budget=0.05, share=1.0, lowest=Quality.FULL))
    async with Sessions(only(FakeModel(full_mask)), 4, metrics, shared, capacity) as sessions:
        made = Encodings(Broadcast("desk"), sessions, threads)
        async with made.share("composite", VP8, subscription()):
            assert not made.has_room("composite")
            with pytest.raises(OutOfCpu):
                async with made.open_own("composite", VP8, subscription(), 250_000):
                    pass
