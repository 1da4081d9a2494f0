"""The page at / with a camera that plays a clip whose masks are exact, and what its pictures show."""

import asyncio
import base64
from asyncio import timeout
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from portrait.server.app import RunningService, run_service
from portrait.settings import Settings
from tests.browser import PATIENCE, SHARED, Browsers, Screen, browsers, open_page, write_camera
from tests.conftest import udp_sockets
from tests.people import Array, clip

__all__ = ["browsers"]  # a fixture

expect.set_options(timeout=PATIENCE)

SIZE = (640, 480)
SHOWN = clip(*SIZE, 60)
ALWAYS = np.min(SHOWN.masks, axis=0)
INSIDE = cv2.erode(ALWAYS, np.ones((61, 61), np.uint8)) > 0
"""Where the person is in every frame, well away from the edge."""
NEVER = cv2.dilate(np.max(SHOWN.masks, axis=0), np.ones((81, 81), np.uint8)) == 0
"""Where the person is in no frame."""

GRAB = """(id) => {
  const video = document.getElementById(id);
  if (!video.videoWidth) return null;
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  return canvas.toDataURL("image/png").split(",")[1]; // at once: toBlob waits until the page has nothing else to do
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(browsers: Browsers) -> AsyncIterator[RunningService]:
    """A whole service, which the tests of a file share as they share browsers."""
    settings = Settings(http_port=0, grpc_port=0, max_sessions=4, drain_seconds=0.0, idle_seconds=5.0)
    async with run_service(settings) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def nothing_left(service: RunningService) -> AsyncIterator[None]:
    """The service has no session and no socket more after a test than before."""
    before = udp_sockets()
    yield
    await emptied(service)
    async with timeout(60):
        while not udp_sockets() <= before:
            await asyncio.sleep(0.05)


async def emptied(service: RunningService) -> None:
    """Wait until every session has ended."""
    async with timeout(60):
        while len(service.sessions):
            await asyncio.sleep(0.05)


@asynccontextmanager
async def browsing(
    service: RunningService,
    tmp_path: Path,
    camera: bool = True,
    allow: bool = True,
    screen: Screen = Screen(),  # noqa: B008
) -> AsyncIterator[Page]:
    """The page, not started, in headless Chromium: the file's, or another where there is no camera."""
    url, file = f"http://127.0.0.1:{service.http_port}/", None
    if camera and allow:
        opened = SHARED[-1].chromium(url, SHOWN, screen)
    else:
        if camera:
            file = tmp_path / "camera.y4m"
            write_camera(file, SHOWN)
        opened = open_page(url, tmp_path / "profile", file, allow, screen=screen)
    async with opened as page:
        yield page


async def result(page: Page, video: str = "result") -> Array | None:
    """What a video shows, as BGR of SIZE."""
    data = await page.evaluate(GRAB, video)
    if data is None:
        return None
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    picture = np.asarray(decoded, np.uint8)
    # The browser may send a smaller picture while it learns the bandwidth.
    return np.asarray(cv2.resize(picture, SIZE), np.uint8)


async def until(page: Page, what: str, wanted: Callable[[Array], bool], video: str = "result") -> Array:
    """The first picture that is as wanted, within two minutes."""
    last = None
    try:
        async with timeout(120):
            while True:
                last = await result(page, video)
                if last is not None and wanted(last):
                    return last
                await asyncio.sleep(0.05)  # a look costs as much as several of the page's frames
    except TimeoutError:
        found = "no picture" if last is None else f"room {mean(last, NEVER)}, person {mean(last, INSIDE)}"
        pytest.fail(f"the result never was {what}: {found}")


def mean(picture: Array, where: Array) -> Array:
    return np.asarray(picture[where].mean(axis=0).round(1))


def room_is(color: tuple[int, int, int], tolerance: float = 16) -> Callable[[Array], bool]:
    return lambda picture: bool(np.abs(mean(picture, NEVER) - color).max() < tolerance)


def detail(picture: Array) -> float:
    """How much there is to see in the room."""
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    edges = np.abs(cv2.Laplacian(grey, cv2.CV_32F, ksize=3))
    return float(edges[cv2.erode(NEVER.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0].mean())


PERSON = np.mean([frame[INSIDE].mean(axis=0) for frame in SHOWN.frames], axis=0)


def person_is_kept(picture: Array) -> bool:
    return bool(np.abs(mean(picture, INSIDE) - PERSON).max() < 14)


async def start(page: Page) -> None:
    await page.click("#toggle")
    await expect(page.locator("#state")).to_have_text("Live")


async def choose(page: Page, mode: str) -> None:
    await page.locator(f"input[name=mode][value={mode}]").check(force=True)


async def says(page: Page, title: str, advice: str) -> None:
    await expect(page.locator("#problem strong")).to_have_text(title)
    await expect(page.locator("#problem p")).to_contain_text(advice)
