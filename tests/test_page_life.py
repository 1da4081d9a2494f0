"""A call from the page at /, from the first press to the last: what is pressed early, twice or late, lost or left."""

import asyncio
from asyncio import timeout
from pathlib import Path

import pytest
from playwright.async_api import expect

from portrait.server.app import RunningService
from tests.pages import browsers, browsing, choose, emptied, nothing_left, room_is, service, start, until

__all__ = ["browsers", "nothing_left", "service"]  # fixtures

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("nothing_left")]

NOTE_STATES = """() => {
  window.states = [];
  const state = document.getElementById("state");
  new MutationObserver(() => window.states.push(state.textContent)).observe(state, { childList: true });
}"""


async def test_what_is_chosen_while_it_connects_holds(service: RunningService, tmp_path: Path) -> None:
    async with browsing(service, tmp_path) as page:
        await page.evaluate(
            """(document.getElementById("toggle").click(),
              document.querySelector("[name=mode][value=color]").click(),
              document.getElementById("color").value = "#2040c0",
              document.getElementById("color").dispatchEvent(new Event("input")))"""
        )
        await until(page, "before the colour", room_is((0xC0, 0x40, 0x20)))


async def test_a_choice_and_the_start_in_one_moment_both_hold(service: RunningService, tmp_path: Path) -> None:
    async with browsing(service, tmp_path) as page:
        await page.evaluate(
            """(document.querySelector("[name=mode][value=color]").click(),
              document.getElementById("way").dispatchEvent(new Event("change")),
              document.getElementById("toggle").click())"""
        )
        await until(page, "before the colour", room_is((0x40, 0xB1, 0x00)))


async def test_the_camera_can_be_stopped_while_it_connects_and_started_again(
    service: RunningService, tmp_path: Path
) -> None:
    """Every press counts, however fast they come; in the end there is one session, or none."""
    async with browsing(service, tmp_path) as page:
        press = "document.getElementById('toggle').click()"
        await page.evaluate(f"({press}, {press}, {press})")
        await expect(page.locator("#state")).to_have_text("Live")
        assert len(service.sessions) == 1
        await page.evaluate(f"({press}, {press}, {press})")
        await expect(page.locator("#state")).to_have_text("Camera off")
        await expect(page.locator("#toggle")).to_have_text("Start camera")
        await emptied(service)


async def test_a_camera_that_is_lost_while_it_connects_ends_the_call_with_words(
    service: RunningService, tmp_path: Path
) -> None:
    async with browsing(service, tmp_path) as page:
        await page.evaluate(
            """(window.real = fetch, window.fetch = async (url, request) => {
              if (request?.method === "POST") await new Promise((resolve) => (window.release = resolve));
              return real(url, request);
            }, window.ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices),
            navigator.mediaDevices.getUserMedia = async (wanted) => (window.camera = await ask(wanted)), true)"""
        )
        await page.click("#toggle")
        async with timeout(60):
            while not await page.evaluate("'release' in window"):
                await asyncio.sleep(0.05)
        await page.evaluate(NOTE_STATES)
        await page.evaluate("(window.camera.getTracks()[0].dispatchEvent(new Event('ended')), true)")
        await expect(page.locator("#problem strong")).to_have_text("The camera is gone")
        await page.evaluate("(release(), true)")
        await emptied(service)
        await expect(page.locator("#state")).to_have_text("Stopped")
        assert "Live" not in await page.evaluate("window.states")
        await expect(page.locator("#problem strong")).to_have_text("The camera is gone")


async def test_the_list_of_cameras_says_which_one_is_used_and_follows_what_is_plugged_in(
    service: RunningService, tmp_path: Path
) -> None:
    async with browsing(service, tmp_path) as page:
        await start(page)
        await page.select_option("#device", index=1)
        chosen = await page.locator("#device").input_value()
        await page.click("#toggle")
        await page.evaluate("navigator.mediaDevices.enumerateDevices = async () => [], true")
        await page.evaluate("navigator.mediaDevices.dispatchEvent(new Event('devicechange')), true")
        await expect(page.locator("#device option")).to_have_count(1)
        await expect(page.locator("#device")).to_have_value("")
        await page.reload()
        await expect(page.locator("#device option:checked")).to_have_count(1)
        await start(page)
        await expect(page.locator("#device")).to_have_value(chosen)


async def test_another_size_and_camera_are_taken_in_a_call(service: RunningService, tmp_path: Path) -> None:
    async with browsing(service, tmp_path) as page:
        await start(page)
        names = await page.locator("#device option").all_text_contents()
        assert len(names) > 1
        assert all(names), "cameras have names once one has been allowed"
        await page.select_option("#device", index=1)
        await page.select_option("#resolution", "640x360")
        await expect(page.locator("#state")).to_have_text("Live")
        await expect(page.locator("#size")).to_have_text("640 × 360")
        assert len(service.sessions) == 1


async def test_what_was_chosen_is_there_on_the_next_visit(service: RunningService, tmp_path: Path) -> None:
    async with browsing(service, tmp_path) as page:
        await choose(page, "image")
        await page.click("[data-name=dusk]")
        await page.select_option("#way", "data")
        await page.uncheck("#mirror")
        await page.reload()
        await expect(page.locator("[name=mode][value=image]")).to_be_checked()
        await expect(page.locator("[data-name=dusk] input")).to_be_checked()
        await expect(page.locator("#way")).to_have_value("data")
        await expect(page.locator("#mirror")).not_to_be_checked()
        for kept in (
            '{"mode": "sepia", "view": 3, "color": "red", "feather": 9, "framing": "no"}',
            "[[",
            '{"background": "gone", "mode": "image"}',
        ):
            await page.evaluate("(kept) => localStorage.setItem('portrait.choice', kept)", kept)
            await page.reload()
            await expect(page.locator("[name=background]:checked")).to_have_count(1)
            await expect(page.locator("[name=mode]:checked")).to_have_count(1)
            await expect(page.locator("#color")).to_have_value("#00b140")
            await expect(page.locator("#feather")).to_have_value("0.25")
            await expect(page.locator("#framing")).not_to_be_checked()


async def test_leaving_the_page_ends_the_session(service: RunningService, tmp_path: Path) -> None:
    async with browsing(service, tmp_path) as page:
        await start(page)
        assert len(service.sessions) == 1
        await page.goto("about:blank")
        await emptied(service)


async def test_a_lost_connection_is_shown_until_it_is_back(service: RunningService, tmp_path: Path) -> None:
    async with browsing(service, tmp_path) as page:
        await start(page)
        await page.evaluate(NOTE_STATES)  # it may be back between two looks
        for session in service.sessions.describe():
            service.sessions[session["id"]].end("injected")
        async with timeout(60):  # asked from outside: the page's policy lets nobody evaluate anything inside
            while not await page.evaluate("window.states.some((text) => text.startsWith('Reconnecting'))"):
                await asyncio.sleep(0.05)
        await expect(page.locator("#state")).to_have_text("Live")
        await expect(page.locator("#fps")).not_to_have_text("–")
        await page.click("#toggle")
        await expect(page.locator("#state")).to_have_text("Camera off")
