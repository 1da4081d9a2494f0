"""WebRTC: a real aiortc peer against the real service, over the machine's own addresses."""

import asyncio
import json
from asyncio import timeout
from collections.abc import Callable

import aiohttp
import cv2
import numpy as np
import pytest
from aiortc import RTCRtpReceiver

from portrait.core.compositors import MODES
from portrait.core.pipeline import Result
from portrait.image.frame import Frame, Mask
from portrait.server.app import RunningService
from portrait.transports.webrtc import connection
from tests.fakes import FakeModel, Gate, failing, full_mask
from tests.people import Array, Clip, clip
from tests.rtc import Camera, Viewer, fake_service, viewer
from tests.whip import shown

__all__ = ["shown"]  # a fixture

pytestmark = pytest.mark.usefixtures("no_sockets_left")


def corner(picture: Array) -> Array:
    """The mean colour of a place where the person never is."""
    return np.asarray(picture[8:40, 8:40].reshape(-1, 3).mean(axis=0))


def near(color: tuple[int, int, int]) -> Callable[[Array], bool]:
    return lambda picture: bool(np.abs(corner(picture) - color).max() < 25)


async def test_the_background_is_replaced_and_the_person_kept(service: RunningService, shown: Clip) -> None:
    async with viewer(f"http://127.0.0.1:{service.http_port}", Camera(shown)) as one:
        await one.connect(mode="color", color="#0000ff")
        picture = await one.until(near((255, 0, 0)))
        always = np.min(shown.masks, axis=0)
        inside = cv2.erode(always, np.ones((25, 25), np.uint8)) > 0
        camera = np.mean([frame[inside].mean(axis=0) for frame in shown.frames], axis=0)
        assert np.abs(picture[inside].mean(axis=0) - camera).max() < 25
        numbers = await one.numbers()
        assert (numbers["width"], numbers["height"], numbers["transport"]) == (320, 240, "webrtc")


async def test_mode_and_background_change_while_it_runs(service: RunningService, shown: Clip) -> None:
    async with viewer(f"http://127.0.0.1:{service.http_port}", Camera(shown)) as one:
        await one.connect(mode="color", color="#00ff00")
        await one.until(near((0, 255, 0)))
        async with one.http.patch(one.location, json={"color": "#ff0000"}) as response:
            assert response.status == 200
        await one.until(near((0, 0, 255)))
        async with one.http.patch(one.location, json={"mode": "mask"}) as response:
            assert response.status == 200
        await one.until(near((0, 0, 0)))
        async with one.http.patch(one.location, json={"mode": "cutout"}) as response:
            assert response.status == 400
            assert "webrtc cannot carry 'cutout'" in (await response.json())["detail"]
        assert (await one.numbers())["mode"] == "mask"


async def test_results_carry_the_time_of_their_own_frame(shown: Clip) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), viewer(url, Camera(shown)) as one:
        await one.connect()
        times = [(await one.frame()).time for _ in range(20)]
    steps = np.diff(times) * 30
    assert np.abs(steps - np.round(steps)).max() < 0.05, "results left the camera's grid of 1/30 s"
    assert steps.min() > 0.5


async def test_delete_ends_the_session(service: RunningService, shown: Clip) -> None:
    async with viewer(f"http://127.0.0.1:{service.http_port}", Camera(shown)) as one:
        await one.connect()
        await one.frame()
        async with one.http.delete(one.location) as response:
            assert response.status == 200
        assert await service.sessions.drain(60) == 0
        async with one.http.get(one.location) as response:
            assert response.status == 404


async def test_a_peer_that_leaves_leaves_nothing_behind(service: RunningService, shown: Clip) -> None:
    async with viewer(f"http://127.0.0.1:{service.http_port}", Camera(shown)) as one:
        await one.connect()
        await one.frame()
    assert await service.sessions.drain(60) == 0


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 20])
async def test_a_service_that_stops_while_a_peer_is_closing_closes_it_whole(shown: Clip, steps: int) -> None:
    """Wherever the cancellation meets it: a connection closed half-way keeps its sockets."""
    async with aiohttp.ClientSession() as http:
        async with fake_service(FakeModel(full_mask)) as (url, sessions):
            one = Viewer(url, http)
            one.pc.addTrack(Camera(shown))
            await one.connect()
            await one.frame()
            sessions[one.location.rpartition("/")[2]].end("injected")
            for _ in range(steps):
                await asyncio.sleep(0)
        assert len(sessions) == 0
        await one.pc.close()


async def test_a_camera_that_falls_silent_ends_the_session(shown: Clip) -> None:
    camera = Camera(shown)
    service = fake_service(FakeModel(full_mask), idle_seconds=2.0)
    async with service as (url, sessions), viewer(url, camera) as one:
        await one.connect()
        await one.frame()
        camera.stop()
        one.pc.getSenders()[0].replaceTrack(None)
        assert await sessions.drain(60) == 0


async def test_a_peer_that_never_connects_is_given_up(shown: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.2)
    async with fake_service(FakeModel(full_mask)) as (url, sessions), viewer(url, Camera(shown)) as one:
        response = await one.post(await one.offer())
        assert response.status == 201
        async with timeout(60):
            session = sessions[response.headers["Location"].rpartition("/")[2]]
            assert await session.wait_ended() == "not connected within 0.2 s"
        assert await sessions.drain(60) == 0


async def test_a_slow_network_gets_the_newest_frame_and_the_rest_is_counted(shown: Clip) -> None:
    gate = Gate()
    async with fake_service(FakeModel(gate)) as (url, sessions), viewer(url, camera := Camera(shown)) as one:
        await one.connect()
        await asyncio.to_thread(gate.entered.acquire)
        session = sessions[one.location.rpartition("/")[2]]
        already = camera.sent
        async with timeout(60):
            while camera.sent < already + 30:
                await asyncio.sleep(0.05)
        gate.let_through.release()
        await asyncio.to_thread(gate.entered.acquire)
        assert session.counters.done == 1
        assert session.counters.dropped >= 20, "frames waited instead of making place"
        gate.let_through.release(10_000)
        await one.frame()


async def test_a_failing_network_shows_nothing_of_the_camera(shown: Clip) -> None:
    async with fake_service(FakeModel(failing)) as (url, _), viewer(url, Camera(shown)) as one:
        await one.connect(mode="color", color="#ff00ff")
        for _ in range(10):
            assert (await one.picture()).reshape(-1, 3).std(axis=0).max() < 4
        assert (await one.numbers())["frames_failed"] != 0


async def test_a_frame_that_cannot_be_composed_ends_the_session_with_its_reason(
    shown: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compose(_: Result) -> Frame:
        raise MemoryError

    monkeypatch.setattr(Result, "compose", compose)
    async with fake_service(FakeModel(full_mask)) as (url, sessions), viewer(url, Camera(shown)) as one:
        await one.connect(mode="color")
        session = sessions[one.location.rpartition("/")[2]]
        async with timeout(60):
            assert "a frame could not be composed" in await session.wait_ended()


async def test_a_frame_over_the_limit_is_refused_and_counted(shown: Clip) -> None:
    service = fake_service(FakeModel(full_mask), max_frame_pixels=1000)
    async with service as (url, _), viewer(url, Camera(shown)) as one:
        await one.connect()
        async with timeout(60):
            while (await one.numbers())["frames_refused"] == 0:
                await asyncio.sleep(0.05)
        assert (await one.numbers())["frames_done"] == 0


async def test_a_client_is_told_that_its_frames_are_refused_and_when_one_is_taken_again() -> None:
    camera, events = Camera(clip(320, 240, 4)), []
    service = fake_service(FakeModel(full_mask), max_frame_pixels=160 * 120)
    async with service as (url, _), viewer(url, camera) as one, timeout(60):
        one.pc.createDataChannel("events").on("message", lambda message: events.append(json.loads(message)))
        await one.connect()
        while not any("refused" in event for event in events):
            await asyncio.sleep(0.05)
        camera.shown = clip(160, 120, 4)
        while {"refused": None} not in events:
            await asyncio.sleep(0.05)
        told = [event["refused"] for event in events if "refused" in event]
        assert all("expected" in reason for reason in told[:-1])
        await one.picture()
    assert told[-1] is None


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "cutout"])
async def test_every_mode_of_a_video_can_be_asked_for(shown: Clip, mode: str) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), viewer(url, Camera(shown)) as one:
        await one.connect(mode=mode, background="dusk")
        assert (await one.picture()).shape == (240, 320, 3)


@pytest.mark.parametrize("codec", ["video/VP8", "video/H264"])
async def test_both_codecs_carry_the_result(shown: Clip, codec: str) -> None:
    model = FakeModel(lambda _: Mask.empty(32, 32))
    async with fake_service(model) as (url, _), viewer(url, Camera(shown)) as one:
        offered = RTCRtpReceiver.getCapabilities("video").codecs
        one.pc.getTransceivers()[0].setCodecPreferences([each for each in offered if each.mimeType == codec])
        await one.connect(mode="color", color="#ffff00")
        await one.until(near((0, 255, 255)))
        negotiated = one.pc.getTransceivers()[0]._codecs
        assert {each.mimeType for each in negotiated} == {codec}


async def test_the_mask_alone_can_be_asked_for(shown: Clip) -> None:
    def left_half(frame: Frame) -> Mask:
        values = np.zeros((32, 32), np.uint8)
        values[:, :16] = 255
        return Mask(values)

    async with fake_service(FakeModel(left_half)) as (url, _), viewer(url, Camera(shown)) as one:
        assert (await one.post(await one.offer(), result="sound")).status == 400
        await one.connect(result="mask")
        frame = await one.frame()
        assert (frame.width, frame.height) == (32, 32)
        luma = frame.to_ndarray(format="yuv420p")[:32].astype(int)
        assert np.abs(luma[:, 2:8] - 235).max() < 12
        assert np.abs(luma[:, 24:30] - 16).max() < 12
