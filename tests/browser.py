"""A real browser with a camera that plays a clip."""

import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright
from playwright.async_api import Error as PlaywrightError

from tests.firefox import Firefox, open_firefox
from tests.people import Clip

CHROMIUM = next((path for path in [shutil.which("chromium")] if path and not path.startswith("/snap")), None)
"""The system's, or None for playwright's own. Ubuntu's snap cannot read a test's files."""

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
]


@dataclass(frozen=True)
class Screen:
    """What a page is looked at with."""

    width: int = 1280
    height: int = 900
    scale: float = 1.0
    """Its own pixels per pixel of CSS."""
    scheme: Literal["light", "dark"] = "light"
    """What the system prefers."""
    touch: bool = False

    def options(self) -> dict[str, Any]:
        """As playwright takes them."""
        return {
            "viewport": {"width": self.width, "height": self.height}, "device_scale_factor": self.scale,
            "color_scheme": self.scheme, "has_touch": self.touch, "is_mobile": self.touch,
        }  # fmt: skip


PHONE = Screen(360, 740, 2, touch=True)


def write_camera(path: Path, clip: Clip, rate: int = 30) -> None:
    """Write a clip as the y4m file Chromium's fake camera plays for ever."""
    height, width = clip.frames[0].shape[:2]
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{rate}:1 Ip A1:1 C420jpeg\n".encode())
        for frame in clip.frames:
            file.write(b"FRAME\n" + np.ascontiguousarray(cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420)).tobytes())


def arguments_for(camera: Path | None, allow: bool = True, extra: Sequence[str] = ()) -> list[str]:
    """Chromium's command line with a camera that plays a file, or with none."""
    arguments = [*ARGUMENTS, *extra]
    if camera is not None:
        arguments.append(f"--use-file-for-fake-video-capture={camera}")
    else:
        arguments.remove("--use-fake-device-for-media-stream")
    return [*arguments, "--use-fake-ui-for-media-stream" if allow else "--deny-permission-prompts"]


PATIENCE = 120_000
"""Milliseconds after which a page does not do any more what a test waits for: many things at once may run."""


@asynccontextmanager
async def open_page(
    url: str,
    profile: Path,
    camera: Path | None,
    allow: bool = True,
    extra: Sequence[str] = (),
    program: str | Path | None = CHROMIUM,
    home: Path | None = None,
    screen: Screen = Screen(),
) -> AsyncIterator[Page]:
    """The page at `url` in headless Chromium; the camera plays the file `camera`, or there is none.

    `home` is where Chromium finds what its user trusts.
    """
    arguments = arguments_for(camera, allow, extra)
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            str(profile),
            executable_path=program,
            headless=True,
            args=arguments,
            env={**os.environ, "HOME": str(home)} if home else None,
            **screen.options(),
        )
        try:
            context.set_default_timeout(PATIENCE)
            page = context.pages[0]
            await page.goto(url)
            yield page
        finally:
            await context.close()


class Browsers:
    """The browsers that the tests of a file share: started when the first test asks, pages and storage each test's own.

    A start costs two seconds of CPU (Chromium) or seven (Firefox), as much as the test itself.
    """

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        """What is started ends with the stack; `folder` is for cameras and profiles."""
        self._folder, self._stack = folder, stack
        self._chromium: dict[int | None, Browser] = {}
        self._firefox: Firefox | None = None
        self._clips: list[Clip] = []

    @asynccontextmanager
    async def chromium(self, url: str, shown: Clip | None = None, screen: Screen = Screen()) -> AsyncIterator[Page]:
        """The page at `url`, whose camera plays a clip, or which has none."""
        context = await (await self._started(shown)).new_context(**screen.options())
        try:
            context.set_default_timeout(PATIENCE)
            page = await context.new_page()
            await page.goto(url)
            yield page
            with suppress(PlaywrightError):  # its server may be gone
                await page.goto("about:blank")  # the page says goodbye
        finally:
            await context.close()

    async def _started(self, shown: Clip | None) -> Browser:
        key = None if shown is None else id(shown)
        if key not in self._chromium:
            camera = None
            if shown is not None:
                self._clips.append(shown)  # kept, so that its id stays its own
                camera = self._folder / f"camera-{len(self._clips)}.y4m"
                write_camera(camera, shown)
            playwright = await self._stack.enter_async_context(async_playwright())
            launching = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=arguments_for(camera))
            self._chromium[key] = await launching
            self._stack.push_async_callback(self._chromium[key].close)
        return self._chromium[key]

    @asynccontextmanager
    async def firefox(self, url: str) -> AsyncIterator[Firefox]:
        """Firefox with WebGL at `url`."""
        if self._firefox is None:
            self._firefox = await self._stack.enter_async_context(open_firefox(url, self._folder / "firefox"))
        else:
            await self._firefox.goto(url)
        yield self._firefox
        await self._firefox.goto("about:blank")


SHARED: list[Browsers] = []
"""The browsers of the file whose tests run, where it uses the fixture below."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browsers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browsers]:
    """Of a file whose tests share the module's event loop, for as long as they run."""
    async with AsyncExitStack() as stack:
        SHARED.append(Browsers(tmp_path_factory.mktemp("browsers"), stack))
        yield SHARED[-1]
        SHARED.pop()
