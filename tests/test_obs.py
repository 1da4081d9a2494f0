"""OBS Studio before and behind the service: by way of a media server over RTMP, since Debian's OBS has no WHIP."""

import asyncio
from asyncio import timeout
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import av

from tests.films import first_picture, is_green, write_video
from tests.http_camera import http_camera
from tests.obs import needs_obs, obs_streaming, rtmp_server
from tests.people import Clip
from tests.ports import free_port
from tests.test_camera_outputs import serving
from tests.test_cameras import cameras, quick
from tests.whip import shown, watcher

__all__ = ["quick", "shown"]  # fixtures


@needs_obs
async def test_obs_is_a_camera_by_way_of_a_media_server_over_rtmp(tmp_path: Path) -> None:
    film, folder = tmp_path / "film.mp4", tmp_path / "recorded"
    write_video(film)
    async with rtmp_server(tmp_path, free_port()) as server, obs_streaming(tmp_path, film, server, "desk") as obs:
        entry = f"url: '{server}/desk', record: '{folder}', segment_seconds: 2"
        async with serving(tmp_path, desk=entry) as service, watcher(f"http://127.0.0.1:{service.http_port}") as one:
            async with timeout(60):
                while (await cameras(service))["desk"]["state"] != "live":
                    assert obs.returncode is None, (tmp_path / "obs.log").read_text()
                    await asyncio.sleep(0.2)
            await one.connect("/whep/desk")
            await one.until(is_green)
            assert (await cameras(service))["desk"]["words"] == "h264 320x240"
            async with timeout(60):
                while not (segments := list(folder.glob("desk-*.mkv"))):
                    await one.frame()
    with av.open(str(segments[0])) as recorded:
        loudest = max(abs(sound.to_ndarray()).max() for sound in recorded.decode(audio=0))
    assert loudest > 0.05, "OBS sends the sound of what it shows"


@needs_obs
async def test_obs_shows_a_result_as_a_media_source(tmp_path: Path, shown: Clip) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(rtmp_server(tmp_path, free_port()))
        camera = await stack.enter_async_context(http_camera(shown.frames[0]))
        await stack.enter_async_context(serving(tmp_path, door=f"url: '{camera.url}', push: '{server}/hidden'"))
        obs = await stack.enter_async_context(obs_streaming(tmp_path, f"{server}/hidden", server, "scene"))
        async with timeout(120):
            while not await asyncio.to_thread(shows_green, f"{server}/scene"):
                assert obs.returncode is None, (tmp_path / "obs.log").read_text()


def shows_green(url: str) -> bool:
    """Whether what OBS streams has the green of mode color; not while it streams nothing, or sound alone."""
    with suppress(av.error.FFmpegError, IndexError):
        return first_picture(url)[1]
    return False
