"""The page at / in headless Chromium with a camera that plays a clip whose masks are exact."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.async_api import expect

from portrait.app import Running, run_service
from portrait.settings import Settings
from tests.browser import open_page
from tests.firefox import needs_firefox, open_firefox

pytestmark = pytest.mark.usefixtures("no_sockets_left")

expect.set_options(timeout=30_000)  # many things at once may run on the machine

NOTE_STATES = """() => {
  window.states = [];
  const state = document.getElementById("state");
  new MutationObserver(() => window.states.push(state.textContent)).observe(state, { childList: true });
}"""


@pytest.fixture
async def service() -> AsyncIterator[Running]:
    async with run_service(Settings(http_port=0, grpc_port=0, drain_seconds=0.0)) as running:
        yield running


@pytest.mark.parametrize("way", ["composite", "mask", "data", "browser"])
async def test_a_person_sees_themselves_before_every_background(service: Running, tmp_path: Path, way: str) -> None:
    """Blur, colour, picture, mask and matte, one after the other in one call, wherever the work is done."""
    async with browsing(service, tmp_path) as page:
        await page.select_option("#way", way)
        await page.click("#toggle")
        await expect(page.locator("#state")).to_have_text("Live")

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

        await page.click("#toggle")
        await expect(page.locator("#state")).to_have_text("Camera off")
    assert await service.sessions.drain(20) == 0


async def test_what_is_chosen_while_it_connects_holds(service: Running, tmp_path: Path) -> None:
    async with browsing(service, tmp_path) as page:
        await page.evaluate(
            """(document.getElementById("toggle").click(),
              document.querySelector("[name=mode][value=color]").click(),
              document.getElementById("color").value = "#2040c0",
              document.getElementById("color").dispatchEvent(new Event("input")))"""
        )
        await until(page, "before the colour", room_is((0xC0, 0x40, 0x20)))


async def test_a_person_can_bring_their_own_picture(service: Running, tmp_path: Path) -> None:
    picture = np.full((900, 1600, 3), (40, 200, 240), np.uint8)
    cv2.imwrite(str(tmp_path / "mine.png"), picture)
    (tmp_path / "text.png").write_text("no picture")
    async with browsing(service, tmp_path) as page:
        await page.click("#toggle")
        await expect(page.locator("#state")).to_have_text("Live")
        await choose(page, "image")
        await page.set_input_files("#upload", tmp_path / "mine.png")
        await until(page, "before the own picture", lambda seen: room_is((40, 200, 240))(seen) and person_is_kept(seen))
        await page.set_input_files("#upload", tmp_path / "text.png")
        await expect(page.locator("#problem")).to_have_text("This file is no picture the browser can read.")


async def test_leaving_the_page_ends_the_session(service: Running, tmp_path: Path) -> None:
    async with browsing(service, tmp_path) as page:
        await page.click("#toggle")
        await expect(page.locator("#state")).to_have_text("Live")
        assert len(service.sessions) == 1
        await page.goto("about:blank")
        assert await service.sessions.drain(20) == 0


async def test_the_page_says_where_the_work_is_done_and_changes_it_in_a_call(service: Running, tmp_path: Path) -> None:
    """By the keyboard alone."""
    async with browsing(service, tmp_path) as page:
        await page.focus("#toggle")
        await page.keyboard.press("Enter")
        await expect(page.locator("#state")).to_have_text("Live")
        await expect(page.locator("#place")).to_have_text("The box makes masks and picture.")
        await page.focus("#way")
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("ArrowDown")
        await expect(page.locator("#place")).to_have_text("The box makes masks, this browser the picture.")
        await expect(page.locator("#way")).to_have_value("data")
        await expect(page.locator("#state")).to_have_text("Live")
        await page.keyboard.press("ArrowDown")
        await expect(page.locator("#place")).to_contain_text("This browser does everything. (an inference takes")
        await expect(page.locator("#whereto")).to_contain_text("It stays in this browser.")
        await expect(page.locator("#fps")).not_to_have_text("–")
        assert await service.sessions.drain(20) == 0


async def test_a_lost_connection_is_shown_until_it_is_back(service: Running, tmp_path: Path) -> None:
    async with browsing(service, tmp_path) as page:
        await page.click("#toggle")
        await expect(page.locator("#state")).to_have_text("Live")
        await page.evaluate(NOTE_STATES)  # it may be back between two looks
        for session in service.sessions.describe():
            service.sessions[session["id"]].end("injected")
        await page.wait_for_function("window.states.some((text) => text.startsWith('Reconnecting'))")
        await expect(page.locator("#state")).to_have_text("Live")
        await expect(page.locator("#fps")).not_to_have_text("–")
        await page.click("#toggle")
        await expect(page.locator("#state")).to_have_text("Camera off")


@needs_firefox
@pytest.mark.parametrize("way", ["composite", "mask", "data", "browser"])
async def test_the_page_runs_in_firefox(service: Running, tmp_path: Path, way: str) -> None:
    """With the test picture of Firefox's own fake camera: nobody is in it, so that all of it becomes the colour."""
    async with open_firefox(f"http://127.0.0.1:{service.http_port}/", tmp_path / "profile") as page:

        async def eventually(condition: str) -> None:
            async with asyncio.timeout(45):
                while not await page.evaluate(condition):
                    await asyncio.sleep(0.1)

        await eventually("document.querySelectorAll('#gallery button').length > 3")
        await page.evaluate(
            f"""(document.getElementById("way").value = "{way}",
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
        assert await service.sessions.drain(20) == 0


async def test_a_refused_camera_is_explained(service: Running, tmp_path: Path) -> None:
    async with browsing(service, tmp_path, allow=False) as page:
        await page.click("#toggle")
        await expect(page.locator("#problem")).to_contain_text("The camera was refused. Allow it in the browser")


async def test_a_missing_camera_is_explained(service: Running, tmp_path: Path) -> None:
    async with browsing(service, tmp_path, camera=False) as page:
        await page.click("#toggle")
        await expect(page.locator("#problem")).to_contain_text("No camera was found")


async def test_an_insecure_page_is_explained(tmp_path: Path) -> None:
    """By a name that is not localhost, plain http is no secure context, and browsers hide the camera there."""
    settings = Settings(http_port=0, grpc_port=0, drain_seconds=0.0, host="0.0.0.0", insecure=True)
    async with run_service(settings) as running:
        url = f"http://portrait.test:{running.http_port}/"
        resolver = ["--host-resolver-rules=MAP portrait.test 127.0.0.1"]
        async with open_page(url, tmp_path / "profile", None, extra=resolver) as page:
            await page.click("#toggle")
            await expect(page.locator("#problem")).to_contain_text("Browsers give the camera to secure pages only")


async def test_a_full_service_is_explained(tmp_path: Path) -> None:
    async with run_service(Settings(http_port=0, grpc_port=0, drain_seconds=0.0)) as running:
        await running.sessions.drain(0)
        async with browsing(running, tmp_path) as page:
            await page.click("#toggle")
            await expect(page.locator("#problem")).to_contain_text("The service answered: the service stops")


def test_the_clip_leaves_room_to_look_at() -> None:
    assert INSIDE.sum() > 5000
    assert NEVER.sum() > 20_000
