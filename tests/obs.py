"""OBS Studio without a desktop: files say what it shows and where it streams, as its windows would have written."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.firefox import XVFB, display

OBS = shutil.which("obs")
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
RTMP = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")

needs_obs = pytest.mark.skipif(
    OBS is None or XVFB is None or NGINX is None or not RTMP.exists(),
    reason="obs-studio, xvfb or libnginx-mod-rtmp is missing: run make system-packages media-packages",
)

NAME = "Test"
"""Of the profile, of the collection of scenes and of the one scene."""

GLOBAL = f"""[General]
FirstRun=true
[Basic]
Profile={NAME}
ProfileDir={NAME}
SceneCollection={NAME}
SceneCollectionFile={NAME}
"""
"""FirstRun: its assistant has been here."""

PROFILE = f"""[General]
Name={NAME}
[Output]
Mode=Simple
[SimpleOutput]
StreamEncoder=x264
Preset=ultrafast
UseAdvanced=true
VBitrate=800
[Video]
BaseCX=320
BaseCY=240
OutputCX=320
OutputCY=240
FPSType=0
FPSCommon=30
"""


def scenes(film: Path | str) -> dict[str, object]:
    """One scene, in which a file is played again and again, or what comes from an address, with its sound."""
    item = {"name": "Film", "id": 1, "visible": True, "align": 5, "pos": {"x": 0, "y": 0}, "scale": {"x": 1, "y": 1}}
    playing: dict[str, object] = {"is_local_file": False, "input": film, "reconnect_delay_sec": 1}
    if isinstance(film, Path):
        playing = {"is_local_file": True, "local_file": str(film), "looping": True}
    return {
        "name": NAME,
        "current_scene": NAME,
        "current_program_scene": NAME,
        "scene_order": [{"name": NAME}],
        "sources": [
            {"id": "ffmpeg_source", "name": "Film", "settings": playing, "mixers": 1, "volume": 1.0},
            {"id": "scene", "name": NAME, "settings": {"id_counter": 1, "items": [item]}},
        ],
    }


@asynccontextmanager
async def rtmp_server(folder: Path, port: int) -> AsyncIterator[str]:
    """The address of nginx with its RTMP module, which hands on what is published below it."""
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"load_module {RTMP}; daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr; events {{}}\n"
        f"rtmp {{ access_log off; server {{ listen 127.0.0.1:{port}; application live {{ live on; }} }} }}\n"
    )
    server = await asyncio.create_subprocess_exec(NGINX or "nginx", "-c", configuration, "-e", "stderr")
    try:
        yield f"rtmp://127.0.0.1:{port}/live"
    finally:
        server.terminate()
        await server.wait()


@asynccontextmanager
async def obs_streaming(
    folder: Path, film: Path | str, server: str, key: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """OBS, which streams a file or an address to `server`/`key`."""
    settings = folder / "obs-studio"
    profile, collections = settings / "basic/profiles" / NAME, settings / "basic/scenes"
    for each in (profile, collections):
        each.mkdir(parents=True)
    (settings / "global.ini").write_text(GLOBAL)
    (profile / "basic.ini").write_text(PROFILE)
    service = {"type": "rtmp_custom", "settings": {"server": server, "key": key}}
    (profile / "service.json").write_text(json.dumps(service))
    (collections / f"{NAME}.json").write_text(json.dumps(scenes(film)))
    async with display() as screen:
        with (folder / "obs.log").open("wb") as said:
            obs = await asyncio.create_subprocess_exec(
                OBS or "obs", "--multi", "--startstreaming", "--minimize-to-tray", "--disable-missing-files-check",
                env={**os.environ, "DISPLAY": screen, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder),
                     "XDG_RUNTIME_DIR": str(folder), "QT_QPA_PLATFORM": "xcb", "LIBGL_ALWAYS_SOFTWARE": "1"},
                stdout=said, stderr=said,
            )  # fmt: skip
        try:
            yield obs
        finally:
            with suppress(ProcessLookupError):
                obs.kill()
            await obs.wait()
