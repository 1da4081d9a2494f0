"""WHIP (RFC 9725) and WHEP: one publishes, others watch; the rules of the signalling, one by one."""

import asyncio
import re
from asyncio import timeout
from unittest.mock import patch

import aiohttp
import av
import numpy as np
import pytest
from aiortc.mediastreams import AudioStreamTrack

from portrait.admission.cost_model import CostModel
from portrait.image.frame import Frame, Mask
from portrait.server.app import RunningService
from tests.fakes import FakeModel, full_mask
from tests.people import Clip
from tests.rtc import Viewer, fake_service
from tests.whip import FRAGMENT, published, publisher, shown, trickled, watcher

__all__ = ["shown"]  # a fixture

pytestmark = pytest.mark.usefixtures("no_sockets_left")


def left_half(frame: Frame) -> Mask:
    values = np.zeros((32, 32), np.uint8)
    values[:, :16] = 255
    return Mask(values)


async def test_one_publishes_and_two_watch_the_composed_picture(service: RunningService, shown: Clip) -> None:
    url = f"http://127.0.0.1:{service.http_port}"
    async with publisher(url, shown) as one, watcher(url) as first, watcher(url) as second:
        await one.connect("/whip/desk", mode="color", color="#ff0000")
        for each in (first, second):
            await each.connect("/whep/desk")
            # The real network leaves the person and paints the rest.
            await each.until(lambda picture: picture[10, 10, 2] > 200 and picture[10, 10, 1] < 60)
        assert (await one.numbers())["frames_done"] > 0


async def test_the_mask_is_a_video_of_its_own_whose_luma_is_the_probability(shown: Clip) -> None:
    async with (
        fake_service(FakeModel(left_half)) as (url, _),
        publisher(url, shown) as one,
        watcher(url) as two,
    ):
        await one.connect("/whip/desk")
        await two.connect("/whep/desk/mask")
        frame = await two.frame()
        assert (frame.width, frame.height) == (32, 32)
        luma = frame.to_ndarray(format="yuv420p")[:32]
        assert np.abs(luma[:, 2:8].astype(int) - 235).max() < 12
        assert np.abs(luma[:, 24:30].astype(int) - 16).max() < 12


async def test_nothing_is_processed_without_viewers(shown: Clip) -> None:
    worked: list[Frame] = []

    def count(frame: Frame) -> Mask:
        worked.append(frame)
        return full_mask(frame)

    async with fake_service(FakeModel(count)) as (url, _), publisher(url, shown) as one, watcher(url) as two:
        await one.connect("/whip/desk")
        async with timeout(60):
            while (await one.numbers())["frames_dropped"] == 0:
                await asyncio.sleep(0.02)
        assert not worked
        await two.connect("/whep/desk")
        await two.frame()
        assert worked


async def test_the_answers_go_one_way_as_the_standards_say(shown: Clip) -> None:
    async with (
        fake_service(FakeModel(full_mask)) as (url, _),
        publisher(url, shown, AudioStreamTrack()) as one,
        watcher(url) as two,
    ):
        await one.connect("/whip/desk")
        answer = one.pc.remoteDescription.sdp
        video, audio = answer[answer.index("m=video") :], answer[answer.index("m=audio") :]
        assert "a=recvonly" in video.split("m=audio")[0]
        assert "a=recvonly" in audio
        assert "opus" in audio
        assert "PCMU" not in audio
        await two.connect("/whep/desk")
        assert "a=sendonly" in two.pc.remoteDescription.sdp


async def test_the_end_of_the_stream_ends_its_viewers_and_its_name_is_free(shown: Clip) -> None:
    async with (
        fake_service(FakeModel(full_mask)) as (url, sessions),
        publisher(url, shown) as one,
        publisher(url, shown) as again,
        watcher(url) as two,
    ):
        await one.connect("/whip/desk")
        await two.connect("/whep/desk")
        await two.frame()
        taken = await again.post(await again.offer(), "/whip/desk")
        assert (taken.status, (await taken.json())["title"]) == (409, "STREAM_TAKEN")
        async with one.http.delete(one.location) as response:
            assert response.status == 200
        async with timeout(60):
            while (await viewers(two))[0] == 200:
                await asyncio.sleep(0.02)
            while (await again.post(again.pc.localDescription.sdp, "/whip/desk")).status != 201:
                await asyncio.sleep(0.05)
        assert len(sessions) == 1


async def viewers(one: Viewer) -> tuple[int, str]:
    async with one.http.get(one.location) as response:
        return response.status, await response.text()


async def test_a_viewer_can_be_asked_about_and_ended(shown: Clip) -> None:
    async with (
        fake_service(FakeModel(full_mask)) as (url, sessions),
        publisher(url, shown) as one,
        watcher(url) as two,
    ):
        await one.connect("/whip/desk")
        await two.connect("/whep/desk/mask")
        async with two.http.get(two.location) as response:
            described = await response.json()
        assert (described["stream"], described["output"]) == ("desk", "mask")
        async with two.http.delete(two.location) as response:
            assert response.status == 200
        async with timeout(60):
            while (await viewers(two))[0] != 404:
                await asyncio.sleep(0.02)
        assert len(sessions) == 1


async def test_a_stream_that_is_not_published_is_to_be_tried_again(shown: Clip) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), watcher(url) as two:
        response = await two.post(await two.offer(), "/whep/nobody")
        assert (response.status, (await response.json())["title"]) == (409, "NOT_PUBLISHED")
        assert int(response.headers["Retry-After"]) > 0
        assert (await two.post(await two.offer(), "/whep/nobody/sound")).status == 404


async def test_viewers_over_the_limit_are_refused_and_leave_nothing(shown: Clip) -> None:
    async with (
        fake_service(FakeModel(full_mask), max_viewers=1) as (url, _),
        publisher(url, shown) as one,
        watcher(url) as two,
        watcher(url) as three,
    ):
        await one.connect("/whip/desk")
        await two.connect("/whep/desk")
        response = await three.post(await three.offer(), "/whep/desk")
        assert (response.status, (await response.json())["title"]) == (503, "TOO_MANY_VIEWERS")
        async with two.http.delete(two.location) as ended:
            assert ended.status == 200
        async with timeout(60):
            while (await three.post(three.pc.localDescription.sdp, "/whep/desk")).status != 201:
                await asyncio.sleep(0.05)


async def test_a_viewer_is_refused_where_its_encoding_does_not_fit(shown: Clip) -> None:
    parts = dict.fromkeys(("segment fake", "decode vp8", "encode vp8"), (0.001, 0.001, 0.001))
    costs = CostModel(parts, "fake", {})
    async with (
        fake_service(FakeModel(full_mask), costs=costs) as (url, _),
        publisher(url, shown) as one,
        watcher(url) as two,
    ):
        await one.connect("/whip/desk")
        response = await two.post(await two.offer(), "/whep/desk")
        assert (response.status, (await response.json())["title"]) == (503, "OUT_OF_CPU")
        assert int(response.headers["Retry-After"]) > 0


async def test_candidates_may_come_after_the_offer(shown: Clip) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), publisher(url, shown) as one, watcher(url) as two:
        await one.connect("/whip/desk")
        offer = re.sub(r"a=(candidate|end-of-candidates).*\r\n", "", await two.offer())
        assert "candidate" not in offer
        response = await two.post(offer, "/whep/desk")
        assert response.status == 201
        two.location, two.etag = url + response.headers["Location"], response.headers["ETag"]
        async with two.http.patch(
            two.location, data=trickled(two), headers={**FRAGMENT, "If-Match": two.etag}
        ) as patched:
            assert patched.status == 204
        await two.take(await response.text())
        assert isinstance(await two.frame(), av.VideoFrame)


async def test_a_publisher_that_leaves_leaves_nothing_behind(shown: Clip) -> None:
    model = FakeModel(full_mask)
    async with fake_service(model) as (url, sessions):
        async with publisher(url, shown) as one, watcher(url) as two:
            await one.connect("/whip/desk")
            await two.connect("/whep/desk")
            await two.frame()
        async with timeout(60):
            while len(sessions) or model.open_count:
                await asyncio.sleep(0.02)
        async with aiohttp.ClientSession() as http, http.get(f"{url}/v1/sessions") as response:
            assert await response.json() == []


@pytest.mark.parametrize("part", ["sessions.session.Session.skip", "transports.webrtc.connection.Connection.watch"])
async def test_a_part_of_a_connection_that_fails_ends_it_with_the_reason(shown: Clip, part: str) -> None:
    """The connection would continue without it: pictures would pile up, a vanished peer would not be noticed."""
    async with fake_service(FakeModel(full_mask)) as (url, sessions), publisher(url, shown) as one:
        with patch(f"portrait.{part}", side_effect=ZeroDivisionError("injected")):
            await one.connect("/whip/desk")
            session = sessions[one.location.rpartition("/")[2]]
            async with timeout(60):
                assert "a part of the connection failed: injected" in await session.wait_ended()


async def test_a_viewer_whose_watchdog_fails_is_ended(shown: Clip) -> None:
    async with published(shown) as (_, _, two):
        with patch("portrait.transports.webrtc.connection.Connection._count_packets", side_effect=ZeroDivisionError):
            async with timeout(60):
                while (await two.http.get(two.location)).status == 200:
                    await asyncio.sleep(0.05)
