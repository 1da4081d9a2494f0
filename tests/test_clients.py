"""Clients that are not ours: the RFC author's WHIP and WHEP client in Chromium, and GStreamer's from Debian."""

import asyncio
from asyncio import timeout
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.async_api import Page

from portrait.server.app import RunningService, run_service
from portrait.settings import Settings
from tests import whip_client
from tests.browser import open_page, write_camera
from tests.origins import elsewhere
from tests.people import clip

MODULES = Path(__file__).parent / "node" / "node_modules" / "whip-whep"
TOKEN = "0123456789abcdef-camera"

PAGE = "<video muted playsinline></video>"
"""With the clients' modules beside it."""

PUBLISH = """async ([url, token]) => {
  const { WHIPClient } = await import("/whip.js");
  const camera = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
  const connection = new RTCPeerConnection();
  connection.addTransceiver(camera.getVideoTracks()[0], { direction: "sendonly", streams: [camera] });
  window.publisher = new WHIPClient();
  await publisher.publish(connection, url, token);
  window.publishing = connection;
  return publisher.resourceURL.href;
}"""

VIEW = """async ([url, token]) => {
  const { WHEPClient } = await import("/whep.js");
  const connection = new RTCPeerConnection();
  connection.addTransceiver("video", { direction: "recvonly" });
  const video = document.querySelector("video");
  connection.ontrack = (event) => { video.srcObject = new MediaStream([event.track]); };
  window.viewer = new WHEPClient();
  await viewer.view(connection, url, token);
  await video.play();
}"""

FRAMES = "document.querySelector('video').getVideoPlaybackQuality().totalVideoFrames"

CORNER = """() => {
  const video = document.querySelector("video");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0);
  return [video.videoWidth, video.videoHeight, ...context.getImageData(20, 20, 1, 1).data.slice(0, 3)];
}"""


@asynccontextmanager
async def serving(tmp_path: Path, origin: str) -> AsyncIterator[tuple[RunningService, str]]:
    """The whole service, which asks for a token and lets that origin's pages in."""
    (tmp_path / "tokens").write_text(f"camera {TOKEN}\n")
    settings = Settings(http_port=0, grpc_port=0, drain_seconds=0.0, tokens=tmp_path / "tokens", origins=origin)
    async with run_service(settings) as running:
        yield running, f"http://127.0.0.1:{running.http_port}"


async def until(condition: Any, seconds: float = 60) -> None:
    async with timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.1)


async def more_frames(page: Page, count: int) -> None:
    """Wait until so many more pictures have been shown."""
    await page.wait_for_function(f"(before) => {FRAMES} >= before + {count}", arg=await page.evaluate(FRAMES))


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    background = np.asarray(cv2.resize(np.full((2, 2, 3), (40, 160, 40), np.uint8), (640, 480)), np.uint8)
    write_camera(tmp_path / "camera.y4m", clip(640, 480, 30, background=background))
    return tmp_path / "camera.y4m"


async def test_the_rfc_authors_client_publishes_and_watches_from_another_origin(tmp_path: Path, camera: Path) -> None:
    async with (
        elsewhere(MODULES, PAGE) as origin,
        serving(tmp_path, origin) as (running, url),
        open_page(origin, tmp_path / "profile", camera) as page,
    ):
        await page.evaluate(PUBLISH, [f"{url}/whip/desk?mode=color&color=%23ff0000", TOKEN])
        await page.wait_for_function("publishing.connectionState === 'connected'")
        await page.evaluate(VIEW, [f"{url}/whep/desk", TOKEN])
        await more_frames(page, 20)

        async def red() -> bool:
            width, height, r, g, b = await page.evaluate(CORNER)
            return (width, height) == (640, 480) and r > 180 and max(g, b) < 70

        await until(red)
        # It trickles by PATCH with the ETag it read across origins; a refusal would have been thrown.
        restarted = await page.evaluate("publisher.restart().then(() => 'taken', (error) => error.message)")
        assert restarted == "Request rejected with status 422"
        await more_frames(page, 20)
        await page.evaluate("Promise.all([viewer.stop(), publisher.stop()])")

        async def nobody() -> bool:
            return len(running.sessions) == 0

        await until(nobody)


async def test_the_rfc_authors_client_is_refused_without_its_token_and_from_another_page(
    tmp_path: Path, camera: Path
) -> None:
    async with (
        elsewhere(MODULES, PAGE) as origin,
        elsewhere(MODULES, PAGE) as other,
        serving(tmp_path, origin) as (_, url),
        open_page(origin, tmp_path / "profile", camera) as page,
    ):
        tried = f"(arguments) => ({PUBLISH})(arguments).catch((error) => error.message)"
        assert await page.evaluate(tried, [f"{url}/whip/desk", "wrong"]) == "Request rejected with status 401"
        await page.goto(other)
        assert await page.evaluate(tried, [f"{url}/whip/desk", TOKEN]) == "Failed to fetch"


@pytest.mark.skipif(whip_client.missing() is not None, reason=str(whip_client.missing()))
@pytest.mark.parametrize(
    ("options", "video"),
    [((), whip_client.VP8), (("--no-trickle",), whip_client.VP8), ((), whip_client.H264_HIGH)],
    ids=["trickle", "no-trickle", "H.264 High"],
)
async def test_gstreamer_publishes_and_a_browser_watches(tmp_path: Path, options: tuple[str, ...], video: str) -> None:
    (tmp_path / "gstreamer").mkdir()
    async with (
        elsewhere(MODULES, PAGE) as origin,
        serving(tmp_path, origin) as (running, url),
        open_page(origin, tmp_path / "profile", None) as page,
    ):
        endpoint = f"{url}/whip/desk?mode=color&color=%230000ff"
        async with whip_client.publishing(tmp_path / "gstreamer", endpoint, TOKEN, *options, video=video):

            async def published() -> bool:
                return any(row["frames_dropped"] for row in running.sessions.describe())

            await until(published)
            await page.evaluate(VIEW, [f"{url}/whep/desk", TOKEN])
            await more_frames(page, 30)

            async def blue() -> bool:
                width, height, r, g, b = await page.evaluate(CORNER)
                return (width, height) == (640, 480) and b > 180 and max(r, g) < 70

            await until(blue)

        async def nobody() -> bool:
            return len(running.sessions) == 0

        await until(nobody)
