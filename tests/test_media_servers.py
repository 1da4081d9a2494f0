"""The recipes of docs/use/cameras.md against MediaMTX and go2rtc themselves, where they are installed."""

import asyncio
from asyncio import timeout
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import av
import pytest

from portrait.server.app import RunningService
from tests.films import FFMPEG, film, first_picture, is_green, needs_ffmpeg, needs_gstreamer, rtsp_camera, running
from tests.media_servers import LOGIN, MediaServer, go2rtc, mediamtx, needs_go2rtc, needs_mediamtx
from tests.test_camera_outputs import serving
from tests.test_cameras import cameras, quick, until_state
from tests.whip import watcher

__all__ = ["quick"]  # a fixture

pytestmark = pytest.mark.live


async def until_sending(service: RunningService, name: str) -> None:
    async with timeout(60):
        while (words := (await cameras(service))[name]["outputs"]) != ["sending"]:
            await asyncio.sleep(0.2)
            assert "refused" not in str(words)


def published(source: Path, url: str) -> AbstractContextManager[object]:
    """The ffmpeg command, which publishes a film over RTSP as it is, as a camera of a media server."""
    sending = (FFMPEG, "-v", "error", "-re", "-stream_loop", "-1", "-i", source, "-c", "copy", "-f", "rtsp")
    return running(*sending, "-rtsp_transport", "tcp", url)


def over_rtmp(server: MediaServer, path: str) -> str:
    """The address of a path of MediaMTX over RTMP."""
    user, _, password = LOGIN.partition(":")
    return f"{server.rtmp}/{path}?user={user}&pass={password}"


async def picture_when_there(url: str) -> tuple[str, bool]:
    """What `first_picture` says, once the server has the path: it waits until it has heard of all tracks."""
    async with timeout(60):
        while True:
            with suppress(av.error.HTTPNotFoundError):
                return await asyncio.to_thread(first_picture, url)
            await asyncio.sleep(0.3)


@needs_mediamtx
@needs_ffmpeg
@pytest.mark.parametrize("way", ["rtsp", "whep", "rtmp"])
async def test_a_path_of_mediamtx_is_a_camera(tmp_path: Path, way: str) -> None:
    async with mediamtx(tmp_path) as server:
        urls = {
            "rtsp": f"{server.rtsp}/door",
            "whep": f"whep+{server.http}/door/whep",
            "rtmp": over_rtmp(server, "door"),
        }
        with published(film(tmp_path / "film.mp4", 60), urls["rtsp"]):
            async with serving(tmp_path, door=f"url: '{urls[way]}'") as service:
                async with watcher(f"http://127.0.0.1:{service.http_port}") as one:
                    async with timeout(60):
                        while (answer := await one.post(await one.offer(), "/whep/door")).status == 409:
                            await asyncio.sleep(0.3)
                    await one.take(await answer.text())
                    await one.until(is_green)
                    camera = (await cameras(service))["door"]
                    assert (camera["state"], camera["codec"]) == ("live", "h264")
                    assert LOGIN.partition(":")[2] not in str(camera)
                await until_state(service, "door", "idle")


@needs_mediamtx
@needs_ffmpeg
@pytest.mark.parametrize(("way", "codec"), [("rtsp", "h264"), ("whip", "vp8"), ("rtmp", "h264")])
async def test_results_are_pushed_to_mediamtx(tmp_path: Path, way: str, codec: str) -> None:
    async with mediamtx(tmp_path) as server:
        push = {
            "rtsp": f"{server.rtsp}/door-hidden",
            "whip": f"whip+{server.http}/door-hidden/whip",
            "rtmp": over_rtmp(server, "door-hidden"),
        }
        with published(film(tmp_path / "film.mp4", 60), f"{server.rtsp}/door"):
            async with serving(tmp_path, door=f"url: '{server.rtsp}/door', push: '{push[way]}'") as service:
                await until_sending(service, "door")
                assert await picture_when_there(f"{server.rtsp}/door-hidden") == (codec, True)


@needs_mediamtx
@needs_gstreamer
async def test_mediamtx_takes_the_result_by_itself_over_whep(tmp_path: Path) -> None:
    with rtsp_camera(film(tmp_path / "film.mp4", 60)) as camera:
        async with serving(tmp_path, door=f"url: '{camera}'") as service:
            source = f"whep://127.0.0.1:{service.http_port}/whep/door"
            async with mediamtx(tmp_path, **{"door-hidden": source}) as server:
                assert (await cameras(service))["door"]["state"] == "idle", "nobody reads it yet"
                assert await picture_when_there(f"{server.rtsp}/door-hidden") == ("vp8", True)
                assert (await cameras(service))["door"]["state"] == "live"


@needs_go2rtc
@needs_gstreamer
@pytest.mark.parametrize("way", ["rtsp", "whep"])
async def test_a_stream_of_go2rtc_is_a_camera(tmp_path: Path, way: str) -> None:
    with rtsp_camera(film(tmp_path / "film.mp4", 60)) as camera:
        async with go2rtc(tmp_path, door=camera) as server:
            url = {"rtsp": f"{server.rtsp}/door", "whep": f"whep+{server.http}/api/webrtc?src=door"}[way]
            async with (
                serving(tmp_path, door=f"url: '{url}'") as service,
                watcher(f"http://127.0.0.1:{service.http_port}") as one,
            ):
                await one.connect("/whep/door")
                await one.until(is_green)
                assert (await cameras(service))["door"]["codec"] == "h264"


@needs_go2rtc
@needs_gstreamer
@pytest.mark.parametrize("way", ["rtsp", "whip"])
async def test_results_are_pushed_to_go2rtc_which_gives_them_to_frigate(tmp_path: Path, way: str) -> None:
    with rtsp_camera(film(tmp_path / "film.mp4", 60)) as camera:
        async with go2rtc(tmp_path, **{"door": camera, "door-hidden": ""}) as server:
            push = {"rtsp": f"{server.rtsp}/door-hidden", "whip": f"whip+{server.http}/api/webrtc?dst=door-hidden"}
            async with serving(tmp_path, door=f"url: '{server.rtsp}/door', push: '{push[way]}'") as service:
                await until_sending(service, "door")
                assert await asyncio.to_thread(first_picture, f"{server.rtsp}/door-hidden?video") == ("h264", True)


@needs_go2rtc
@needs_gstreamer
async def test_go2rtc_takes_the_result_by_itself_over_whep(tmp_path: Path) -> None:
    with rtsp_camera(film(tmp_path / "film.mp4", 60)) as camera:
        async with serving(tmp_path, door=f"url: '{camera}'") as service:
            source = f"webrtc:http://127.0.0.1:{service.http_port}/whep/door"
            async with go2rtc(tmp_path, hidden=source) as server:
                assert await asyncio.to_thread(first_picture, f"{server.rtsp}/hidden?video") == ("h264", True)
