"""OBS Studio streams over RTMP to a media server, from which the service takes it as a camera."""

import asyncio
from asyncio import timeout
from pathlib import Path

import av

from tests.films import is_green, write_video
from tests.obs import needs_obs, obs_streaming, rtmp_server
from tests.ports import free_port
from tests.test_camera_outputs import serving
from tests.test_cameras import cameras, quick
from tests.whip import watcher

__all__ = ["quick"]  # a fixture


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
