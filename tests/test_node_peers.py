"""WebRTC clients of Node.js: libwebrtc as @roamhq/wrtc, libdatachannel as node-datachannel, and werift."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from portrait.server.app import RunningService

FOLDER = Path(__file__).parent / "node"
SIZE = (640, 360)
PICTURES = 20
SECONDS = 120


def needs(package: str) -> pytest.MarkDecorator:
    """Skips a test where the package is not installed."""
    is_there = shutil.which("node") and (FOLDER / "node_modules" / package).exists()
    return pytest.mark.skipif(not is_there, reason=f"{package} is not installed: run make test")


@contextmanager
def running(*words: str) -> Iterator["subprocess.Popen[str]"]:
    """A program for the length of the block."""
    process = subprocess.Popen(words, cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def found_by(process: "subprocess.Popen[str]") -> dict[str, int]:
    """What a script has printed at its end."""
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    return dict(json.loads(out.splitlines()[-1]))


def address(service: RunningService) -> str:
    return f"http://127.0.0.1:{service.http_port}/webrtc?mode=blur"


EXPECTED = {"count": PICTURES, "width": SIZE[0], "height": SIZE[1]}


@needs("@roamhq/wrtc")
async def test_libwebrtc_gets_its_frames_back(service: RunningService) -> None:
    with running("node", "frames_peer.cjs", address(service), str(PICTURES)) as peer:
        assert await asyncio.to_thread(found_by, peer) == EXPECTED


@pytest.mark.parametrize("library", [pytest.param(name, marks=needs(name)) for name in ("werift", "node-datachannel")])
async def test_a_library_without_codecs_gets_its_pictures_back(service: RunningService, library: str) -> None:
    """FFmpeg makes the packets."""
    with running("node", "rtp_peer.cjs", library, address(service), str(PICTURES)) as peer:
        assert peer.stdout is not None
        port = await asyncio.to_thread(peer.stdout.readline)
        assert port.strip().isdecimal(), peer.communicate()[1]
        picture = f"testsrc=size={SIZE[0]}x{SIZE[1]}:rate=30"
        made = [
            "-re",
            "-f",
            "lavfi",
            "-i",
            picture,
            "-c:v",
            "libvpx",
            "-deadline",
            "realtime",
            "-cpu-used",
            "8",
            "-g",
            "15",
        ]
        sent = ["-b:v", "800k", "-payload_type", "96", "-f", "rtp", f"rtp://127.0.0.1:{port.strip()}?pkt_size=1200"]
        with running("ffmpeg", "-loglevel", "error", *made, *sent):
            assert await asyncio.to_thread(found_by, peer) == EXPECTED
