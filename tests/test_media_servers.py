"""The recipes of docs/use/cameras.md against go2rtc itself, where it is installed."""

import asyncio
from asyncio import timeout
from pathlib import Path

import av
import numpy as np
import pytest

from portrait.server.app import RunningService
from tests.films import film, is_green, needs_gstreamer, rtsp_camera
from tests.media_servers import go2rtc, needs_go2rtc
from tests.test_camera_outputs import serving
from tests.test_cameras import cameras, quick
from tests.whip import watcher

__all__ = ["quick"]  # a fixture

pytestmark = pytest.mark.live


async def until_sending(service: RunningService, name: str) -> None:
    async with timeout(60):
        while (words := (await cameras(service))[name]["outputs"]) != ["sending"]:
            await asyncio.sleep(0.2)
            assert "refused" not in str(words)


def first_picture(url: str) -> tuple[str, bool]:
    """The codec at an address, and whether its first picture has the green of mode color."""
    with av.open(url, options={"rtsp_transport": "tcp"} if url.startswith("rtsp") else {}, timeout=20) as container:
        frame = next(container.decode(video=0))
        picture = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
        return container.streams.video[0].codec_context.name, is_green(picture)


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
        async with go2rtc(tmp_path, **{"door": camera, "door-hidden": "[]"}) as server:
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
