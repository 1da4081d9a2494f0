"""Tabs of real browsers with /portrait.js, and what their pictures show."""

import asyncio
import base64
import threading
from asyncio import timeout
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import pytest

from portrait.image.frame import Frame, Mask
from tests.browser import SHARED, open_page
from tests.fakes import FakeModel
from tests.firefox import needs_firefox, open_firefox
from tests.people import Array

TESTS = Path(__file__).parent
KIT = (TESTS / "web" / "kit.js").read_text()

BROWSERS = ["chromium", pytest.param("firefox", marks=needs_firefox)]


class Tab(Protocol):
    async def evaluate(self, expression: str) -> Any: ...


@asynccontextmanager
async def tab(browser: str, url: str, folder: Path, *extra: str) -> AsyncIterator[Tab]:
    """The box's page in a browser, not started, and the tests' own tools in it; in the file's own one if it has one."""
    if SHARED and "no-webgl" not in extra:
        async with getattr(SHARED[-1], browser)(url) as shared:
            await shared.evaluate(f"(() => {{ {KIT} }})()")
            yield shared
    elif browser == "firefox":
        async with open_firefox(url, folder / "firefox", webgl="no-webgl" not in extra) as firefox:
            await firefox.evaluate(f"(() => {{ {KIT} }})()")
            yield firefox
    else:
        flags = ["--disable-3d-apis"] if "no-webgl" in extra else []
        async with open_page(url, folder / "chromium", None, extra=flags) as page:
            await page.evaluate(f"(() => {{ {KIT} }})()")
            yield page


def number_in(luma: Any) -> int:
    """What kit.js has drawn into a frame."""
    height, width = luma.shape
    middles = [int((bit + 0.5) * width / 5) for bit in range(5)]
    return sum(int(luma[: height // 5, x - 4 : x + 4].mean() > 128) << bit for bit, x in enumerate(middles))


LEAST = 5
"""Columns of the mask of number 0, of 32: thinner ones are lost where masks are brought to the picture's edges."""


def bar(frame: Frame) -> Mask:
    """The upper quarter, where the number stands, and below as many columns more than LEAST as it says."""
    values = np.zeros((192, 192), np.uint8)
    values[:48] = 255
    values[48:, : 6 * (LEAST + number_in(frame.y))] = 255
    return Mask(values)


def bars(segment: Callable[[Frame], Mask] = bar) -> FakeModel:
    """A model of the embedded one's size that finds bars."""
    model = FakeModel(segment)
    model.width = model.height = 192
    return model


class Valve:
    """A network that hangs until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def __call__(self, frame: Frame) -> Mask:
        assert self.opened.wait(60), "nobody opened the valve"
        return bar(frame)


async def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    async with timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


def png(picture: Array) -> str:
    ok, data = cv2.imencode(".png", picture)
    assert ok
    return base64.b64encode(data.tobytes()).decode()


async def eventually(page: Tab, condition: str, seconds: float = 60) -> None:
    """Wait until an expression in the page is true."""
    async with timeout(seconds):
        while not await page.evaluate(condition):
            await asyncio.sleep(0.05)
