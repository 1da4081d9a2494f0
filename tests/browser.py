"""A real browser with a camera that plays a clip."""

import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from playwright.async_api import Page, async_playwright

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


PHONE = Screen(360, 740, 2, touch=True)


def write_camera(path: Path, clip: Clip, rate: int = 30) -> None:
    """Write a clip as the y4m file Chromium's fake camera plays for ever."""
    height, width = clip.frames[0].shape[:2]
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{rate}:1 Ip A1:1 C420jpeg\n".encode())
        for frame in clip.frames:
            file.write(b"FRAME\n" + np.ascontiguousarray(cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420)).tobytes())


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
    arguments = [*ARGUMENTS, *extra]
    if camera is not None:
        arguments.append(f"--use-file-for-fake-video-capture={camera}")
    else:
        arguments.remove("--use-fake-device-for-media-stream")
    arguments.append("--use-fake-ui-for-media-stream" if allow else "--deny-permission-prompts")
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            str(profile),
            executable_path=program,
            headless=True,
            args=arguments,
            env={**os.environ, "HOME": str(home)} if home else None,
            viewport={"width": screen.width, "height": screen.height},
            device_scale_factor=screen.scale,
            color_scheme=screen.scheme,
            has_touch=screen.touch,
            is_mobile=screen.touch,
        )
        try:
            page = context.pages[0]
            await page.goto(url)
            yield page
        finally:
            await context.close()
