"""The page on a phone, on a narrow screen and in the system's own colours: nothing is cut off, missed or unseen."""

from pathlib import Path

import pytest
from playwright.async_api import expect

from portrait.server.app import RunningService
from tests.browser import PHONE, Screen
from tests.pages import browsers, browsing, choose, nothing_left, service, start

__all__ = ["browsers", "nothing_left", "service"]  # fixtures

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("nothing_left")]

SMALL = """() => {
  const shown = (element) => element.checkVisibility({ visibilityProperty: true });
  const found = [...document.querySelectorAll("button, select, summary, input, a")].filter(shown);
  return found.flatMap((element) => {
    if (element.matches(".skip, p a")) return []; // a line of text has its own measure
    const { width, height } = (element.labels?.[0] ?? element).getBoundingClientRect();
    return width >= 44 && height >= 44 ? [] : [`${element.id || element.value} ${width}x${height}`];
  });
}"""
"""Controls that a thumb misses: WCAG 2.5.5 and the makers of phones ask for 44 pixels."""

FROM_ABOVE = """() => {
  const top = (name) => document.querySelector(`.${name}`).getBoundingClientRect().top;
  return ["edges", "behind", "numbers", "stage-card", "where", "work"].sort((one, other) => top(one) - top(other));
}"""
"""The parts of the page in the order in which they are seen."""


@pytest.mark.parametrize("mode", ["blur", "color", "image"])
async def test_on_a_phone_nothing_is_cut_off_and_thumbs_hit(service: RunningService, tmp_path: Path, mode: str) -> None:
    async with browsing(service, tmp_path, screen=PHONE) as page:
        await choose(page, mode)
        await expect(page.locator("#gallery label")).to_have_count(5)
        await start(page)
        for view in ("single", "pair", "wipe"):
            await page.locator(f"[name=view][value={view}]").check(force=True)
            assert await page.evaluate("document.documentElement.scrollWidth") == 360, view
            assert not await page.evaluate(SMALL), view
        assert await page.evaluate(FROM_ABOVE) == ["stage-card", "behind", "edges", "work", "numbers", "where"]
        for dialog in ("code", "keys"):
            await page.click(f"#show-{dialog}")
            box = await page.locator(f"#{dialog}").bounding_box()
            assert box
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 360
            await page.keyboard.press("Escape")


async def test_on_a_phone_the_picture_stays_in_sight_while_it_is_changed(
    service: RunningService, tmp_path: Path
) -> None:
    async with browsing(service, tmp_path, screen=PHONE) as page:
        await start(page)
        await page.click(".edges summary")
        await page.evaluate("document.getElementById('feather').scrollIntoView(), true")
        await expect(page.locator("#result")).to_be_in_viewport(ratio=0.95)
        seen = "(({ left, top }) => document.elementFromPoint(left + 9, top + 9)?.id)(%s.getBoundingClientRect())"
        assert await page.evaluate(seen % "document.getElementById('feather')") == "feather", "nothing lies over it"


@pytest.mark.parametrize("mode", ["color", "image"])
async def test_in_forced_colours_what_is_chosen_is_seen(service: RunningService, tmp_path: Path, mode: str) -> None:
    """What the system paints over says nothing: shades, and the colours one may choose."""
    style = """(selector) => {
      const { backgroundColor, boxShadow } = getComputedStyle(document.querySelector(selector));
      return [backgroundColor, boxShadow];
    }"""
    async with browsing(service, tmp_path) as page:
        await page.emulate_media(forced_colors="active")
        await choose(page, mode)
        for group in (".modes", ".segments"):
            chosen = await page.evaluate(style, f"{group} input:checked + span")
            assert chosen[0] != (await page.evaluate(style, f"{group} input:not(:checked) + span"))[0]
        picks = ".swatches input{} + span" if mode == "color" else ".gallery input{} + img"
        chosen, other = [await page.evaluate(style, picks.format(f)) for f in (":checked", ":not(:checked)")]
        assert chosen[1] != other[1]
        assert mode != "color" or chosen[0] == "rgb(0, 177, 64)"


@pytest.mark.parametrize("screen", [Screen(), Screen(320, 640)], ids=["desktop", "narrow"])
async def test_no_word_is_wider_than_its_button(service: RunningService, tmp_path: Path, screen: Screen) -> None:
    wide = """() => [...document.querySelectorAll(".modes span, .segments span, .primary, .upload label")]
      .filter(({ scrollWidth, clientWidth }) => scrollWidth > clientWidth).map(({ textContent }) => textContent)"""
    async with browsing(service, tmp_path, screen=screen) as page:
        for mode in ("blur", "color", "image", "mask", "alpha"):
            await choose(page, mode)
            assert not await page.evaluate(wide), mode
