"""What a camera's results are besides a viewer's: segments on disk, an RTMP push, another service's camera."""

import asyncio
from asyncio import timeout
from contextlib import aclosing
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from portrait.client import Client, ClientError
from portrait.server.app import run_service
from portrait.settings import Settings
from tests.films import FFMPEG, PYTHON, film, is_green, needs_ffmpeg, needs_gstreamer, read_video, rtsp_camera, running
from tests.http_camera import http_camera
from tests.people import Clip
from tests.ports import free_port
from tests.test_cameras import cameras, quick, until_state
from tests.test_sound import listener
from tests.whip import shown, watcher

__all__ = ["quick", "shown"]  # fixtures


def serving(folder: Path, **entries: str) -> Any:
    file = folder / "cameras.yaml"
    file.write_text("".join(f"{name}: {{{entry}, mode: color, color: '#00ff00'}}\n" for name, entry in entries.items()))
    return run_service(Settings(http_port=0, grpc_port=0, drain_seconds=0.0, cameras=file))


async def test_a_camera_is_recorded_in_whole_segments_at_its_own_pace(tmp_path: Path, shown: Clip) -> None:
    folder = tmp_path / "recorded"
    async with http_camera(shown.frames[0]) as camera:
        entry = f"url: '{camera.url}', record: '{folder}', segment_seconds: 1.5"
        async with serving(tmp_path, door=entry) as service:
            async with timeout(60):
                while len(list(folder.glob("door-*.mkv"))) < 2:
                    await asyncio.sleep(0.1)
            assert (await cameras(service))["door"]["outputs"] == ["recording"]
    assert not list(folder.glob(".*")), "the last segment is completed"
    for segment in folder.glob("door-*.mkv"):
        frames = read_video(segment)
        assert all(is_green(frame) for frame in frames)
        with av.open(str(segment)) as container:
            times = [float(frame.time or 0.0) for frame in container.decode(video=0)]
        assert times[0] < 0.1
        assert np.all(np.diff(times) > 0)
    with av.open(str(min(folder.glob("door-*.mkv")))) as container:
        assert 1.0 < float(container.duration or 0) / av.time_base < 4.0


@needs_ffmpeg
async def test_a_camera_is_pushed_over_rtmp_once_its_server_listens(tmp_path: Path, shown: Clip) -> None:
    port, received = free_port(), tmp_path / "received.flv"
    url = f"rtmp://127.0.0.1:{port}/live/secret-key"
    async with (
        http_camera(shown.frames[0]) as camera,
        serving(tmp_path, door=f"url: '{camera.url}', push: '{url}'") as service,
    ):
        async with timeout(60):
            while "refused" not in (words := (await cameras(service))["door"]["outputs"][0]):
                await asyncio.sleep(0.1)
        assert "secret-key" not in words
        with running(FFMPEG, "-v", "error", "-listen", "1", "-i", url, "-c", "copy", "-t", "1", "-y", received) as peer:
            async with timeout(60):
                await asyncio.to_thread(peer.wait)
        assert (await cameras(service))["door"]["state"] == "live"
    assert all(is_green(frame) for frame in read_video(received))


@needs_gstreamer
async def test_a_camera_is_pushed_over_rtsp(tmp_path: Path, shown: Clip) -> None:
    pushed = tmp_path / "pushed.mkv"
    with running(PYTHON, Path(__file__).with_name("rtsp_recorder.py"), pushed) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        async with (
            http_camera(shown.frames[0]) as camera,
            serving(tmp_path, door=f"url: '{camera.url}', push: '{url}'"),
            timeout(60),
        ):
            while not (pushed.exists() and pushed.stat().st_size > 50_000):
                await asyncio.sleep(0.1)
    with av.open(str(pushed)) as container:
        first = next(container.decode(video=0))
    assert is_green(np.asarray(first.to_ndarray(format="bgr24"), np.uint8))


async def test_another_services_whep_is_a_camera(tmp_path: Path, shown: Clip) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("box 0123456789abcdef-token\n")
    file = tmp_path / "first.yaml"
    async with http_camera(shown.frames[0]) as camera:
        file.write_text(f"door: {{url: '{camera.url}', mode: color, color: '#00ff00'}}\n")
        first = Settings(http_port=0, grpc_port=0, drain_seconds=0.0, cameras=file, tokens=tokens)
        async with run_service(first) as one:
            async with Client(f"127.0.0.1:{one.grpc_port}") as stranger:
                with pytest.raises(ClientError, match="UNAUTHENTICATED"):
                    await anext(stranger.watch("door"))
            base = f"127.0.0.1:{one.http_port}/whep"
            urls = {
                "door": f"whep+http://0123456789abcdef-token@{base}/door",
                "wrong": f"whep+http://0123456789abcdef-other@{base}/door",
                "none": f"whep+http://0123456789abcdef-token@{base}/nobody",
            }
            entries = {name: f"url: '{url}'" for name, url in urls.items()}
            async with serving(tmp_path, **entries) as two, Client(f"127.0.0.1:{two.grpc_port}") as client:
                with pytest.raises(ClientError, match="refused the user name, the password or the token"):
                    await anext(client.watch("wrong"))
                with pytest.raises(ClientError, match="answered the offer with status 409"):
                    await anext(client.watch("none"))
                async with watcher(f"http://127.0.0.1:{two.http_port}") as viewer:
                    await viewer.connect("/whep/door")
                    assert is_green(await viewer.picture())
                    async with aclosing(client.watch("door")) as results:
                        times = [(await anext(results)).timestamp_us for _ in range(5)]
                assert np.all(np.diff(times) > 0)
                assert "0123456789" not in str(await cameras(two))
                await until_state(two, "door", "idle")


async def test_a_camera_is_published_on_another_service_over_whip(tmp_path: Path, shown: Clip) -> None:
    async with http_camera(shown.frames[0]) as camera, run_service(Settings(http_port=0, grpc_port=0)) as other:
        url = f"http://127.0.0.1:{other.http_port}"
        entry = f"url: '{camera.url}', push: 'whip+{url}/whip/copy'"
        async with serving(tmp_path, door=entry) as service, watcher(url) as viewer:
            async with timeout(60):
                while (await cameras(service))["door"]["outputs"] != ["sending"]:
                    await asyncio.sleep(0.1)
            await viewer.connect("/whep/copy")
            assert is_green(await viewer.until(is_green))


@needs_gstreamer
async def test_a_cameras_sound_is_heard_by_viewers_and_is_in_recordings(tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    with rtsp_camera(film(tmp_path / "film.mp4", 60), "endless") as url:
        entry = f"url: '{url}', record: '{folder}', segment_seconds: 2"
        async with serving(tmp_path, door=entry) as service, listener(f"http://127.0.0.1:{service.http_port}") as one:
            await one.connect("/whep/door")
            listening = asyncio.create_task(one.listen())
            async with timeout(60):
                while one.energy < 1000 or not list(folder.glob("door-*.mkv")):
                    assert not listening.done()
                    await asyncio.sleep(0.1)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
    with av.open(str(min(folder.glob("door-*.mkv")))) as recorded:
        sounds = [np.abs(frame.to_ndarray()).mean() for frame in recorded.decode(audio=0)]
        assert np.median(sounds) > 0.1
        assert recorded.streams.video[0].codec_context.name == "h264"
