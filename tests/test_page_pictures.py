"""The pictures of the docs: the page at work before a picture that may be shown, as a person sees it.

`make screenshots` keeps them in docs/page; every run takes some of them, and holds the docs to those there are.
"""

import io
import os
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from playwright.async_api import Page, expect

from portrait.server.app import RunningService
from tests.browser import SHARED, Screen
from tests.pages import browsers, nothing_left, service
from tests.people import Array, Clip
from tests.tabs import eventually
from tests.whip import publisher

__all__ = ["browsers", "nothing_left", "service"]  # fixtures

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("nothing_left")]

DOCS = Path(__file__).parents[1] / "docs"
KEPT = os.environ.get("SCREENSHOTS")
"""The folder where the pictures are kept, if they are; they are taken and looked at in any case."""

DESKTOP, PHONE = (1280, 936), (360, 760)


@dataclass(frozen=True)
class Shot:
    """A picture of the docs."""

    name: str
    size: tuple[int, int]
    dark: bool = False
    mode: str = "image"
    background: str = "office"
    view: str = ""
    beside: str = "camera"
    code: bool = False
    started: bool = True
    wall: bool = False
    """Whether it shows the streams of the box alone."""


SHOTS = [
    Shot("desktop-light", DESKTOP),
    Shot("desktop-dark", DESKTOP, dark=True, background="dusk"),
    Shot("compare-light", DESKTOP, view="wipe", beside="mode:blur"),
    Shot("code-dark", DESKTOP, dark=True, code=True, background="studio"),
    Shot("welcome-light", DESKTOP, started=False, mode="blur"),
    Shot("wall-light", DESKTOP, started=False, wall=True),
    Shot("phone-light", PHONE, mode="blur"),
    Shot("phone-dark", PHONE, dark=True, background="lights"),
]
WALL = {"desk": "blur", "door": "pixelate"}
"""The streams of the picture of the wall, and how they look."""

SOME = [shot for shot in SHOTS if shot.name in ("compare-light", "code-dark", "phone-dark")]
"""Taken in every run; between them they make every step of the others."""


@cache
def film() -> Clip:
    """Eileen Collins (NASA, public domain), breathing a little."""
    whole = cv2.imread(str(DOCS / "pictures" / "astronaut.jpg"))
    picture = whole[6:270, 60:412]  # the network takes flag and rocket for parts of her
    frames = [np.asarray(breathe(np.asarray(picture, np.uint8), 2 * np.pi * i / 60), np.uint8) for i in range(60)]
    return Clip(frames, [])


def breathe(picture: Array, phase: float) -> Array:
    scale = 480 / 264 * (1.02 + 0.008 * np.sin(phase))
    matrix = np.float32([[scale, 0, 320 - 176 * scale + 3 * np.sin(phase)], [0, scale, 480 - 264 * scale]])
    return np.asarray(cv2.warpAffine(picture, matrix, (640, 480), flags=cv2.INTER_CUBIC), np.uint8)


@pytest.mark.parametrize("shot", SHOTS if KEPT else SOME, ids=lambda shot: shot.name)
async def test_the_page_looks_as_the_docs_show_it(service: RunningService, shot: Shot) -> None:
    phone = shot.size == PHONE
    screen = Screen(*shot.size, scale=2 if phone else 1.5, scheme="dark" if shot.dark else "light", touch=phone)
    url = f"http://localhost:{service.http_port}/"
    async with AsyncExitStack() as stack:
        for name, mode in WALL.items() if shot.wall else ():
            one = await stack.enter_async_context(publisher(url.rstrip("/"), film()))
            await one.connect(f"/whip/{name}", mode=mode)
        page = await stack.enter_async_context(SHARED[-1].chromium(url, film(), screen))
        await expect(page.locator("#gallery label")).to_have_count(5)
        await page.locator(f"[name=mode][value={shot.mode}]").check(force=True)
        if shot.mode == "image":
            await page.click(f"[data-name={shot.background}]")
        if shot.view:
            await page.locator(f"[name=view][value={shot.view}]").check(force=True)
            await page.select_option("#beside", shot.beside)
        if shot.started:
            await page.click("#toggle")
            await is_steady(page)
        if shot.code:
            await page.click("#show-code")
        for name in WALL if shot.wall else ():
            await page.get_by_role("button", name=f"Watch {name}").click()
            video = f"document.querySelector(\"[aria-label='{name}']\")"
            await eventually(page, f"{video}.videoWidth === 640 && {video}.currentTime > 3", 120)
            await page.evaluate(f"{video}.controls = false")
            await expect(page.locator("#streams li", has_text=name)).to_contain_text("somebody is there")
        await page.mouse.move(0, 0)
        await page.evaluate("(scrollTo(0, 0), document.activeElement.blur(), document.fonts.ready.then(() => true))")
        data = await (page.locator("#wall") if shot.wall else page).screenshot()
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    brightness = np.asarray(picture.convert("L")).mean()
    assert (brightness < 110) == shot.dark, f"{shot.name}: brightness {brightness}"
    if KEPT:
        # Figures are read at this quality, and faces are not spoilt.
        picture.save(Path(KEPT) / f"{shot.name}.jpg", quality=86, subsampling=0, optimize=True)


async def is_steady(page: Page) -> None:
    """The call is live, in its full size and has numbers; where the picture is kept, it is smooth as well."""
    await expect(page.locator("#state")).to_have_text("Live", timeout=60_000)
    await eventually(page, "document.getElementById('result').videoWidth === 640", 60)
    await expect(page.locator("#fps")).not_to_have_text("–")
    if KEPT:
        rate = "Number(document.getElementById('fps').textContent) >= 27"
        calm = "document.getElementById('dropped-note').textContent === 'none recently'"
        await eventually(page, f"{rate} && {calm}", 240)


async def test_the_docs_show_these_pictures_and_no_others() -> None:
    pages = [(DOCS / "use" / "browser.md").read_text(), (DOCS.parent / "README.md").read_text()]
    shown = {name for page in pages for name in re.findall(r"page/([\w-]+)\.jpg", page)}
    assert shown == {shot.name for shot in SHOTS}
    assert {path.stem for path in (DOCS / "page").glob("*.jpg")} == shown
