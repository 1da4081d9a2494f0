"""Declared cameras: connected while they are watched, told of in words when they fail, and back when they are back."""

import asyncio
import json
import logging
import ssl
import time
from asyncio import timeout
from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import av
import numpy as np
import pytest
from aiohttp import web

from portrait.client import Client, ClientError
from portrait.errors import BadSettings
from portrait.logs import FIELDS
from portrait.server.app import RunningService, run_service
from portrait.settings import Settings
from portrait.transports.cameras.declared import read_cameras
from portrait.v1 import segmentation_pb2 as pb
from tests.credentials import Authority
from tests.films import FFMPEG, film, needs_ffmpeg, needs_gstreamer, rtsp_camera, running
from tests.http_camera import PASSWORD, http_camera
from tests.people import Array, Clip
from tests.ports import free_port
from tests.proxy import Proxy
from tests.whip import shown, watcher

__all__ = ["shown"]  # a fixture

LOOKS = "mode: color, color: '#00ff00'"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cameras that are left and tried again at once."""
    monkeypatch.setattr("portrait.transports.cameras.camera.LINGER_SECONDS", 0.5)
    monkeypatch.setattr("portrait.transports.cameras.camera.LONGEST_PAUSE", 0.3)
    monkeypatch.setattr("portrait.transports.files.reader.TIMEOUT", (3.0, 3.0))


@asynccontextmanager
async def watching(folder: Path, **urls: str) -> AsyncIterator[RunningService]:
    """A service with these cameras, green where there is no person."""
    file = folder / "cameras.yaml"
    file.write_text("".join(f"{name}: {{url: '{url}', {LOOKS}}}\n" for name, url in urls.items()))
    async with run_service(Settings(http_port=0, grpc_port=0, drain_seconds=0.0, cameras=file)) as service:
        yield service


async def cameras(service: RunningService) -> dict[str, dict[str, Any]]:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{service.http_port}/v1/cameras") as response,
    ):
        return {camera["name"]: camera for camera in await response.json()}


async def until_state(service: RunningService, name: str, state: str) -> dict[str, Any]:
    async with timeout(60):
        while (camera := (await cameras(service))[name])["state"] != state:
            await asyncio.sleep(0.05)
    return camera


def is_green(picture: Array) -> bool:
    return bool(np.abs(picture[:10, :10].reshape(-1, 3).mean(axis=0) - (0, 255, 0)).max() < 40)


@needs_gstreamer
@pytest.mark.parametrize("codec", ["h264", "h265"])
async def test_a_camera_over_rtsp_is_connected_while_it_is_watched(tmp_path: Path, codec: str) -> None:
    source = film(tmp_path / f"{codec}.mp4", 60, codec=codec)
    with rtsp_camera(source) as url:
        async with watching(tmp_path, door=url) as service:
            assert (await cameras(service))["door"]["state"] == "idle"
            url = f"http://127.0.0.1:{service.http_port}"
            async with watcher(url) as one, watcher(url) as two, Client(f"127.0.0.1:{service.grpc_port}") as client:
                await one.connect("/whep/door")
                assert is_green(await one.until(is_green))
                await two.connect("/whep/door/mask")
                assert (await two.frame()).width < 320
                async with aclosing(client.watch("door")) as results:
                    masks = [await anext(results) for _ in range(10)]
                assert max(mask.array.max() for mask in masks) > 200
                assert [each.id for each in masks] == list(range(1, 11))
                assert max(mask.presence.share for mask in masks if mask.presence is not None) > 0.01
                assert all(a.timestamp_us < b.timestamp_us for a, b in pairwise(masks))
                camera = (await cameras(service))["door"]
                assert (camera["state"], camera["codec"], camera["width"]) == (
                    "live", {"h264": "h264", "h265": "hevc"}[codec], 320,
                )  # fmt: skip
            assert (await until_state(service, "door", "idle"))["words"] == "connects when it is watched"


@needs_gstreamer
async def test_a_camera_that_is_cut_comes_back_to_the_same_viewer(tmp_path: Path) -> None:
    small, large, port = film(tmp_path / "film.mp4", 60), film(tmp_path / "large.mp4", 20, size=(640, 480)), free_port()
    with ExitStack() as cutting:
        url = cutting.enter_context(rtsp_camera(small, port=port))
        async with watching(tmp_path, door=url) as service, watcher(f"http://127.0.0.1:{service.http_port}") as one:
            await one.connect("/whep/door")
            before = (await one.frame()).pts
            cutting.close()
            await until_state(service, "door", "failed")
            with rtsp_camera(large, port=port):
                picture = await one.until(lambda picture: picture.shape[:2] == (480, 640))
                after = await one.frame()
                assert is_green(picture)
                assert before is not None
                assert after.pts is not None
                assert before < after.pts < before + 60 * 90_000


async def test_a_camera_that_is_cut_again_and_again_is_tried_again_as_soon_each_time(
    tmp_path: Path, shown: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portrait.transports.cameras.camera.STEADY_SECONDS", 0.2)
    async with (
        http_camera(shown.frames[0]) as camera,
        watching(tmp_path, door=camera.url) as service,
        watcher(f"http://127.0.0.1:{service.http_port}") as one,
    ):
        await one.connect("/whep/door")
        for opened in range(1, 4):
            async with timeout(60):
                while camera.opened < opened or (await cameras(service))["door"]["state"] != "live":
                    await one.frame()
            await asyncio.sleep(0.3)
            assert (await cameras(service))["door"]["failures"] == min(1, opened - 1), "which doubles no pause"
            camera.cut()


@needs_gstreamer
async def test_a_camera_over_rtsp_gets_the_password_that_it_asks_for(tmp_path: Path) -> None:
    with rtsp_camera(film(tmp_path / "film.mp4", 20), password=PASSWORD) as url:
        right, wrong = (url.replace("//", f"//admin:{word}@") for word in (PASSWORD, "other"))
        async with (
            watching(tmp_path, right=right, wrong=wrong) as service,
            Client(f"127.0.0.1:{service.grpc_port}") as client,
        ):
            with pytest.raises(ClientError, match="the camera refused the user name or the password"):
                await anext(client.watch("wrong"))
            async with aclosing(client.watch("right", composite=True)) as results:
                assert (await anext(results)).picture.format == pb.PICTURE_FORMAT_JPEG


@needs_gstreamer
async def test_a_camera_over_rtsps_is_watched(tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*Authority.new().issue(tmp_path, "camera"))
    with rtsp_camera(film(tmp_path / "film.mp4", 20)) as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
        async with (
            Proxy(port, tls=context) as tls,
            watching(tmp_path, door=f"rtsps://127.0.0.1:{tls.port}/camera") as service,
            Client(f"127.0.0.1:{service.grpc_port}") as client,
            aclosing(client.watch("door")) as results,
        ):
            assert (await anext(results)).id == 1
            assert (await cameras(service))["door"]["address"] == f"rtsps://127.0.0.1:{tls.port}/camera"


@needs_ffmpeg
async def test_a_camera_over_rtmp_is_watched(tmp_path: Path) -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/door"
    source = film(tmp_path / "film.mp4", 60)
    # It serves the first client that connects, and nobody after it.
    with running(FFMPEG, "-v", "error", "-re", "-i", source, "-c", "copy", "-f", "flv", "-listen", "1", url):
        async with watching(tmp_path, door=url) as service, watcher(f"http://127.0.0.1:{service.http_port}") as one:
            async with timeout(60):
                while (answer := await one.post(await one.offer(), "/whep/door")).status == 409:
                    await asyncio.sleep(0.2)
            await one.take(await answer.text())
            await one.until(is_green)
            assert (await cameras(service))["door"]["words"] == "h264 320x240"


async def test_a_camera_over_http_may_stall_change_its_size_and_its_rate(tmp_path: Path, shown: Clip) -> None:
    async with http_camera(shown.frames[0]) as camera, watching(tmp_path, door=camera.url) as service:
        async with watcher(f"http://127.0.0.1:{service.http_port}") as one:
            await one.connect("/whep/door")
            await one.until(is_green)
            camera.rate, camera.picture = 12.5, np.repeat(np.repeat(shown.frames[0], 2, 0), 2, 1)
            await one.until(lambda picture: picture.shape[:2] == (480, 640))
            camera.stalls = True
            failed = await until_state(service, "door", "failed")
            assert "nothing came for" in failed["words"]
            camera.stalls = False
            await until_state(service, "door", "live")
            await one.until(is_green)
            assert camera.opened >= 2
        await until_state(service, "door", "idle")
        async with timeout(20):
            while camera.connections:
                await asyncio.sleep(0.05)


async def test_a_camera_that_nobody_watches_is_connected_while_presence_in_it_is_listened_to(
    tmp_path: Path, shown: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portrait.transports.cameras.camera.LISTENERS_SECONDS", 0.05)
    async with http_camera(shown.frames[0]) as camera, watching(tmp_path, door=camera.url) as service:
        url = f"http://127.0.0.1:{service.http_port}/v1/events"
        async with timeout(60), aiohttp.ClientSession() as http, http.get(url, params={"stream": "door"}) as response:
            event: dict[str, Any] = {"present": False}
            while not event["present"]:
                line = await response.content.readline()
                event = json.loads(line.removeprefix(b"data: ")) if line.startswith(b"data: ") else event
            assert (event["stream"], event["transport"]) == ("door", "camera")
            assert event["box"]["width"] > 0.2
        await until_state(service, "door", "idle")


async def test_a_playlist_is_shown_at_its_own_pace(tmp_path: Path) -> None:
    """HLS gives seconds of video at once, of which a live stream would show the last picture alone."""
    folder = tmp_path / "hls"
    folder.mkdir()
    with av.open(str(film(tmp_path / "film.mp4", 10))) as source:
        playlist: Any = av.open(str(folder / "live.m3u8"), "w", format="hls", options={"hls_time": "1"})
        with playlist:
            copied = playlist.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = copied
                    playlist.mux(packet)
    application = web.Application()
    application.router.add_static("/", folder)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port := free_port())
    await site.start()
    try:
        async with (
            watching(tmp_path, door=f"http://127.0.0.1:{port}/live.m3u8") as service,
            Client(f"127.0.0.1:{service.grpc_port}") as client,
            aclosing(client.watch("door")) as results,
        ):
            first, began = await anext(results), time.monotonic()
            async for last in results:
                if last.timestamp_us - first.timestamp_us > 2_000_000:
                    break
            assert time.monotonic() - began > 1.5
            assert last.id > 10
    finally:
        await runner.cleanup()


async def test_a_camera_that_fails_says_why_and_never_its_password(
    tmp_path: Path, shown: Clip, caplog: pytest.LogCaptureFixture
) -> None:
    large = np.zeros((1200, 1920, 3), np.uint8)
    async with http_camera(shown.frames[0]) as camera, http_camera(large, rate=5) as huge:
        base, login = f"127.0.0.1:{camera.port}", f"admin:{PASSWORD}"
        urls = {
            "gone": f"rtsp://{login}@127.0.0.1:{free_port()}/secret",
            "refused": f"http://admin:{PASSWORD}x@{base}/video.mjpg",
            "page": f"http://{login}@{base}/page",
            "missing": f"http://{login}@{base}/nothing",
            "moved": f"http://{login}@{base}/moved",
            "sound": f"http://{login}@{base}/sound.wav",
            "huge": huge.url,
        }
        expected = {
            "gone": "nothing listens at this address",
            "refused": "the camera refused the user name or the password",
            "page": "what the address answers is no media that FFmpeg can read",
            "missing": "the camera has nothing at this path",
            "sound": "there is no video in what the camera sends",
            "huge": "its pictures have 1920x1200, more than PORTRAIT_MAX_FRAME_PIXELS=2088960 allows",
            "moved": "the address cannot be read, or leads elsewhere, which is not followed",
        }
        with caplog.at_level(logging.DEBUG):
            async with watching(tmp_path, **urls, good=camera.url) as service:
                url = f"http://127.0.0.1:{service.http_port}"
                async with watcher(url) as one, Client(f"127.0.0.1:{service.grpc_port}") as client:
                    for name, words in expected.items():
                        answer = await one.post(await one.offer(), f"/whep/{name}")
                        problem = await answer.json()
                        assert (answer.status, problem["title"]) == (409, "NOT_PUBLISHED")
                        assert words in problem["detail"], name
                        with pytest.raises(ClientError) as failed:
                            await anext(client.watch(name))
                        assert (failed.value.reason, words in failed.value.message) == ("NOT_PUBLISHED", True)
                    await one.connect("/whep/good")  # which suffers nothing from the others
                    await one.until(is_green)
                    listed = await cameras(service)
                    assert {name: listed[name]["words"] for name in expected} == expected
                    assert listed["good"]["address"] == f"http://{base}/video.mjpg"
                    async with one.http.get(f"{url}/metrics") as response:
                        metrics = await response.text()
        assert 'portrait_camera_live{camera="good"} 1.0' in metrics
        assert 'portrait_camera_failures_total{camera="gone"}' in metrics
        assert PASSWORD not in metrics + json.dumps(listed) + caplog.text


@needs_gstreamer
async def test_a_video_that_cannot_be_decoded_and_none_at_all_are_told_in_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = {
        "odd": "the video has a codec that cannot be decoded",
        "deaf": "there is no video in what the camera sends",
    }
    with (
        rtsp_camera(film(tmp_path / "film.mp4", 60), called="AVS3") as odd,
        rtsp_camera(None, sound="endless") as deaf,
    ):
        async with (
            watching(tmp_path, odd=odd, deaf=deaf) as service,
            watcher(f"http://127.0.0.1:{service.http_port}") as one,
        ):
            for name, words in expected.items():
                answer = await one.post(await one.offer(), f"/whep/{name}")
                assert (answer.status, words in (await answer.json())["detail"]) == (409, True)
                assert (await until_state(service, name, "failed"))["words"] == words
            async with one.http.get(f"{one.url}/metrics") as response:
                metrics = await response.text()
    fields = [getattr(each, FIELDS, {}) for each in caplog.records]
    assert set(expected.items()) <= {(each.get("camera"), each.get("reason")) for each in fields}
    for name in expected:
        assert f'portrait_camera_live{{camera="{name}"}} 0.0' in metrics
        assert f'portrait_camera_failures_total{{camera="{name}"}}' in metrics


async def test_a_camera_whose_pictures_break_is_told_in_words_and_is_back_with_the_next_whole_one(
    tmp_path: Path, shown: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portrait.transports.cameras.camera.UNDECODABLE_SECONDS", 0.3)
    async with (
        http_camera(shown.frames[0]) as camera,
        watching(tmp_path, door=camera.url) as service,
        watcher(f"http://127.0.0.1:{service.http_port}") as one,
    ):
        await one.connect("/whep/door")
        await one.until(is_green)
        camera.breaks = True
        words = (await until_state(service, "door", "failed"))["words"]
        assert words.startswith("no picture could be decoded for 0.3 s: "), words
        camera.breaks = False
        await until_state(service, "door", "live")
        await one.until(is_green)


async def test_a_silent_camera_blocks_neither_the_service_nor_its_end(tmp_path: Path) -> None:
    held: list[asyncio.StreamWriter] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        file = tmp_path / "cameras.yaml"
        file.write_text(f"door: {{url: 'rtsp://127.0.0.1:{port}/door', always: true}}\n")
        async with run_service(Settings(http_port=0, grpc_port=0, drain_seconds=0.0, cameras=file)) as service:
            assert (await until_state(service, "door", "connecting"))["always"] is True
            late = 0.0
            for _ in range(20):
                began = time.monotonic()
                await asyncio.sleep(0.01)
                late = max(late, time.monotonic() - began)
            assert late < 1.0
            ending = time.monotonic()
        assert time.monotonic() - ending < 2.5
        for writer in held:
            writer.close()
            await writer.wait_closed()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("door: file:///etc/passwd", r"camera 'door': got the scheme file:, expected rtsp://"),
        ("door: /etc/passwd", r"camera 'door': got no scheme, expected rtsp://"),
        ("door: concat:hunter2", "got the scheme concat:"),
        ("door: v4l2:/dev/../etc/passwd", "got the scheme v4l2:"),
        ("door: rtsp://", "rtsp:// without a host"),
        ("door: {url: 'rtsp://a/b', pasword: hunter2}", "pasword: Extra inputs are not permitted; expected always"),
        ("door: {url: 'rtsp://a/b', mode: hunter2}", "camera 'door'"),
        ("door: {url: 'rtsp://a/b', mode: image}", "background: got none"),
        ("door: 'rtsp://me:${NOT_SET}@a/b'", r"names \$\{NOT_SET\}, which the environment does not have"),
        ("do or: rtsp://a/b", r"got the name 'do or', expected letters"),
        ("door: [rtsp://me:hunter2@a", "not valid YAML in line"),
        ("door: srt://a:1", "built without SRT"),
        ("door: http://127.0.0.1:OWN/whep/door", "an address is this service's own"),
    ],
)
async def test_what_cannot_be_a_camera_is_refused_at_the_start(tmp_path: Path, text: str, message: str) -> None:
    file, port = tmp_path / "cameras.yaml", free_port()
    file.write_text(text.replace("OWN", str(port)) + "\n")
    with pytest.raises(BadSettings, match=message) as refused:
        async with run_service(Settings(http_port=port, grpc_port=0, cameras=file)):
            pass
    assert "me:hunter2" not in str(refused.value)


def test_cameras_come_from_the_file_the_environment_and_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOOR_PASSWORD", "hunter2")
    file = tmp_path / "cameras.yaml"
    file.write_text("door: {url: 'rtsp://me:${DOOR_PASSWORD}@door/1?a=b', transport: udp, threshold: 0.6}\n")
    settings = Settings(cameras=file, camera="gate=v4l2:/dev/video0 yard=rtsps://yard:322/1")
    door, gate, yard = read_cameras(settings)
    assert (door.address.url, door.address.shown) == ("rtsp://me:hunter2@door/1?a=b", "rtsp://door/1")
    assert (door.address.options["rtsp_transport"], door.options.threshold) == ("udp", 0.6)
    assert (gate.address.url, yard.address.shown) == ("/dev/video0", "rtsps://yard:322/1")
    assert "hunter2" not in repr(door)
    assert "yard" not in json.dumps(settings.model_dump(mode="json"))


async def test_nothing_else_takes_a_cameras_name(tmp_path: Path) -> None:
    async with (
        watching(tmp_path, door="rtsp://127.0.0.1:1/x") as service,
        watcher(f"http://127.0.0.1:{service.http_port}") as one,
    ):
        answer = await one.post(await one.offer(), "/whip/door")
        assert (answer.status, (await answer.json())["title"]) == (409, "STREAM_TAKEN")
