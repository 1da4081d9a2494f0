"""The page at / in headless Chromium with a camera that plays a clip whose masks are exact."""

import asyncio
import re
from asyncio import timeout
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.async_api import expect

from portrait.server.app import RunningService
from tests.browser import SHARED
from tests.firefox import needs_firefox
from tests.pages import (
    INSIDE,
    NEVER,
    SHOWN,
    SIZE,
    browsers,
    browsing,
    choose,
    detail,
    emptied,
    mean,
    nothing_left,
    person_is_kept,
    room_is,
    service,
    start,
    until,
)
from tests.people import Array

__all__ = ["browsers", "nothing_left", "service"]  # fixtures

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("nothing_left")]

RESULT_AT = """(share) => {
  const { left, top, width, height } = document.getElementById("divider").getBoundingClientRect();
  return document.elementsFromPoint(left + share * width, top + height / 2).some(({ id }) => id === "result");
}"""
"""Whether the result is what is seen at this share of the width."""


@pytest.mark.parametrize("way", ["composite", "mask", "data", "browser"])
async def test_a_person_sees_themselves_before_every_background(
    service: RunningService, tmp_path: Path, way: str
) -> None:
    """Blur, colour, picture, mask and matte, one after the other in one call, wherever the work is done."""
    async with browsing(service, tmp_path) as page:
        await page.select_option("#way", way)
        await start(page)

        camera_detail = np.mean([detail(frame) for frame in SHOWN.frames[:3]])
        blurred = await until(page, "blurred", lambda seen: detail(seen) < 0.4 * camera_detail and person_is_kept(seen))
        assert np.abs(mean(blurred, NEVER) - mean(SHOWN.frames[0], NEVER)).max() < 20, "blur keeps the room's colours"

        await choose(page, "color")
        await page.locator("#color").fill("#2040c0")
        await until(page, "before the colour", lambda seen: room_is((0xC0, 0x40, 0x20))(seen) and person_is_kept(seen))

        await choose(page, "image")
        await page.click("[data-name=dusk]")
        scene = cv2.imread(str(Path(__file__).parents[1] / "service/portrait/scenes/dusk.jpg"))
        fitted = np.asarray(cv2.resize(scene[:, 160:1120], SIZE), np.uint8)
        dusk = tuple(mean(fitted, NEVER))
        await until(page, "before the picture", lambda seen: room_is(dusk)(seen) and person_is_kept(seen))

        await choose(page, "mask")
        await until(page, "a mask", lambda seen: room_is((0, 0, 0))(seen) and bool(mean(seen, INSIDE).min() > 240))

        await choose(page, "alpha")
        await until(page, "a matte", lambda seen: room_is((0, 0, 0), 4)(seen) and bool(mean(seen, INSIDE).min() > 245))

        await expect(page.locator("#size")).to_have_text("640 × 480")
        await expect(page.locator("#fps")).not_to_have_text("–")
        await expect(page.locator("#latency")).to_contain_text("ms")
        await expect(page.locator("#dropped")).not_to_have_text("–")
        await expect(page.locator("#quality")).to_have_text("Full")
        await expect(page.locator("#quality-note")).to_have_text(
            "every mask is made in this browser" if way == "browser" else re.compile("its own mask|outline moves")
        )
        await expect(page.locator("#model")).to_have_text("network portrait")
        await expect(page.locator("#connection")).to_have_text("none needed" if way == "browser" else "direct")

        await page.click("#toggle")
        await expect(page.locator("#state")).to_have_text("Camera off")
    await emptied(service)


async def test_two_modes_stand_side_by_side_and_one_over_the_other(service: RunningService, tmp_path: Path) -> None:
    """The camera, another mode and another way of the same beside the result; each is a session of its own."""
    async with browsing(service, tmp_path) as page:
        await choose(page, "color")
        await page.locator("#color").fill("#2040c0")
        await start(page)
        blue = room_is((0xC0, 0x40, 0x20))
        seen = await until(page, "the camera", person_is_kept, "preview")
        assert detail(seen) > 0.6 * np.mean([detail(frame) for frame in SHOWN.frames[:3]])
        assert len(service.sessions) == 1

        await page.select_option("#beside", "mode:mask")
        await until(page, "a mask beside", lambda seen: bool(mean(seen, INSIDE).min() > 240), "preview")
        await until(page, "before the colour still", lambda seen: blue(seen) and person_is_kept(seen))
        await expect(page.locator("#other-caption")).to_have_text("Compared: mask")
        assert len(service.sessions) == 2

        await page.select_option("#beside", "way:data")
        await until(page, "the same, made elsewhere", lambda seen: blue(seen) and person_is_kept(seen), "preview")
        await page.locator("#color").fill("#a02020")
        red = room_is((0x20, 0x20, 0xA0))
        await until(page, "red as well", red, "preview")
        await until(page, "red", red)

        await page.locator("[name=view][value=wipe]").check(force=True)
        for at, left, right in ((0, True, True), (50, False, True), (100, False, False)):
            await page.locator("#divider").fill(str(at))
            assert [await page.evaluate(RESULT_AT, share) for share in (0.25, 0.75)] == [left, right], f"{at} %"
        await expect(page.locator("#divider")).to_have_attribute("aria-valuetext", "100 % of the width")

        await page.locator("[name=view][value=single]").check(force=True)
        await expect(page.locator("#preview")).to_be_hidden()
        async with timeout(60):
            while len(service.sessions) != 1:
                await asyncio.sleep(0.1)
        await until(page, "red still", red)


async def test_edges_are_set_and_the_picture_follows_where_the_box_makes_it(
    service: RunningService, tmp_path: Path
) -> None:
    """Softer edges are seen, on the box and in the browser; what only the box can do is offered only there."""

    def between(seen: Array) -> float:
        return float(((seen > 30) & (seen < 225)).mean())

    def told() -> dict[str, object]:
        [session] = service.sessions.describe()
        return {name: session[name] for name in ("threshold", "feather", "decontaminate", "framing")}

    async with browsing(service, tmp_path) as page:
        await choose(page, "alpha")
        await page.click(".edges summary")
        await page.locator("#feather").fill("0.05")
        await start(page)
        matte = room_is((0, 0, 0), 4)
        hard = between(await until(page, "a matte", lambda seen: matte(seen) and bool(mean(seen, INSIDE).min() > 245)))
        await page.locator("#feather").fill("0.5")
        await until(page, "softer", lambda seen: matte(seen) and between(seen) > 1.5 * hard)
        await page.locator("#threshold").fill("0.7")
        await page.check("#framing")
        await page.check("#decontaminate")
        async with timeout(60):
            while told() != {"threshold": 0.7, "feather": 0.3, "decontaminate": True, "framing": True}:
                await asyncio.sleep(0.1)

        await page.select_option("#way", "data")
        await expect(page.locator("#framing")).to_be_disabled()
        await expect(page.locator("#framing-hint")).to_be_visible()
        await until(page, "soft, made in the browser", lambda seen: matte(seen) and between(seen) > 1.2 * hard)
        await page.reload()
        await expect(page.locator("#threshold")).to_have_value("0.7")
        await expect(page.locator("#framing")).to_be_checked()
        await page.click(".edges summary")
        await page.click("text=Reset")
        await expect(page.locator("#threshold")).to_have_value("0.5")
        await expect(page.locator("#framing")).not_to_be_checked()


async def test_the_page_says_where_the_work_is_done_and_changes_it_in_a_call(
    service: RunningService, tmp_path: Path
) -> None:
    """By the keyboard alone."""
    async with browsing(service, tmp_path) as page:
        await page.focus("#toggle")
        await page.keyboard.press("Enter")
        await expect(page.locator("#state")).to_have_text("Live")
        await expect(page.locator("#place")).to_have_text("The box makes the masks and the picture.")
        await page.focus("#way")
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("ArrowDown")
        await expect(page.locator("#place")).to_have_text("The box makes the masks, this browser the picture.")
        await expect(page.locator("#way")).to_have_value("data")
        await expect(page.locator("#state")).to_have_text("Live")
        await page.keyboard.press("ArrowDown")
        await expect(page.locator("#place")).to_contain_text("picture stays here. (an inference takes")
        await expect(page.locator("#trip")).to_have_text("nothing is sent")
        await expect(page.locator("#fps")).not_to_have_text("–")
        await emptied(service)


@needs_firefox
@pytest.mark.parametrize("way", ["composite", "mask", "data", "browser"])
async def test_the_page_runs_in_firefox(service: RunningService, way: str) -> None:
    """With the test picture of Firefox's own fake camera: nobody is in it, so that all of it becomes the colour."""
    async with SHARED[-1].firefox(f"http://127.0.0.1:{service.http_port}/") as page:

        async def eventually(condition: str) -> None:
            async with timeout(60):
                while not await page.evaluate(condition):
                    await asyncio.sleep(0.1)

        await eventually("document.querySelectorAll('#gallery label').length > 3")
        await page.evaluate(
            f"""(document.getElementById("way").value = "{way}",
              document.getElementById("way").dispatchEvent(new Event("change")),
              document.querySelector("[name=mode][value=color]").click(),
              document.getElementById("color").value = "#2040c0",
              document.getElementById("color").dispatchEvent(new Event("input")),
              document.getElementById("toggle").click())"""
        )
        await eventually("document.getElementById('state').textContent === 'Live'")
        await eventually("Number(document.getElementById('fps').textContent) > 0")
        await eventually(
            """(() => {
              const context = document.createElement("canvas").getContext("2d");
              context.drawImage(document.getElementById("result"), 0, 0, 320, 180);
              const [r, g, b] = context.getImageData(20, 20, 1, 1).data;
              return Math.abs(r - 0x20) + Math.abs(g - 0x40) + Math.abs(b - 0xc0) < 30;
            })()"""
        )
        assert re.fullmatch(r"\d+ × \d+", await page.evaluate("document.getElementById('size').textContent"))
        await page.evaluate("document.getElementById('toggle').click()")
        await eventually("document.getElementById('state').textContent === 'Camera off'")
        await emptied(service)


async def test_the_clip_leaves_room_to_look_at() -> None:
    assert INSIDE.sum() > 5000
    assert NEVER.sum() > 20_000
