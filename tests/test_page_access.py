"""The page for everybody: keyboard, screen reader, light and dark."""

import re
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from portrait.server.app import RunningService
from tests.browser import PHONE, SHARED, Screen
from tests.firefox import needs_firefox
from tests.pages import browsers, browsing, choose, nothing_left, service, start

__all__ = ["browsers", "nothing_left", "service"]  # fixtures

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("nothing_left")]

AXE = Path(__file__).parent / "node" / "node_modules" / "axe-core" / "axe.min.js"
DOCS = Path(__file__).parents[1] / "docs" / "use" / "browser.md"

LOOK = """async () => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id} ${node.target}: ${node.failureSummary}`));
}"""

FOCUSED = """() => {
  const { activeElement: at } = document;
  if (at === document.body) return null;
  const shown = at.matches("[type=radio], [type=file]") ? at.parentElement.querySelector("input + *") : at;
  const { outlineStyle, outlineWidth } = getComputedStyle(shown);
  return [at.id || at.name || at.textContent.trim(), outlineStyle, parseFloat(outlineWidth)];
}"""


async def faults(page: Page) -> list[str]:
    """What axe-core finds."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(AXE.read_text() + ";0")
    found: list[str] = await page.evaluate(LOOK)
    return found


@pytest.mark.parametrize(("screen", "scheme"), [(Screen(), "light"), (PHONE, "dark")], ids=["desktop", "phone"])
async def test_axe_finds_nothing_in_any_condition(
    service: RunningService, tmp_path: Path, screen: Screen, scheme: str
) -> None:
    """At rest, with every part of the form open, with an error, in a call, in both dialogs."""
    look = Screen(screen.width, screen.height, screen.scale, "dark" if scheme == "dark" else "light", screen.touch)
    async with browsing(service, tmp_path, screen=look) as page:
        assert not await faults(page)
        for mode in ("image", "color"):
            await choose(page, mode)
            assert not await faults(page), mode
        await page.evaluate("(window.ask = navigator.mediaDevices.getUserMedia, true)")
        await page.evaluate(
            "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('x', 'NotAllowedError')), true"
        )
        await page.click("#toggle")
        await expect(page.locator("#problem")).to_be_visible()
        assert not await faults(page), "an error"
        await page.evaluate("navigator.mediaDevices.getUserMedia = window.ask, true")
        await page.locator("[name=view][value=wipe]").check(force=True)
        await start(page)
        assert not await faults(page), "a call"
        for dialog in ("code", "keys"):
            await page.click(f"#show-{dialog}")
            await expect(page.locator(f"#{dialog}")).to_be_visible()
            assert not await faults(page), dialog
            await page.keyboard.press("Escape")


async def test_a_fault_would_be_found(service: RunningService, tmp_path: Path) -> None:
    async with browsing(service, tmp_path) as page:
        await page.evaluate("document.getElementById('why').style.color = 'light-dark(#e0e0e0, #202020)'")
        await page.evaluate("document.getElementById('toggle').textContent = ''")
        found = await faults(page)
        assert any(each.startswith("color-contrast") for each in found)
        assert any(each.startswith("button-name") for each in found)


async def test_every_control_is_reached_by_keyboard_with_a_focus_that_shows(
    service: RunningService, tmp_path: Path
) -> None:
    """From the top to the end and around; a group of radio buttons is one stop, its arrows do the rest."""
    async with browsing(service, tmp_path) as page:
        await choose(page, "image")
        await expect(page.locator("#gallery label")).to_have_count(5)
        await page.reload()  # as somebody comes to it
        await expect(page.locator("#gallery label")).to_have_count(5)
        stops = list[str]()
        for _ in range(40):
            await page.keyboard.press("Tab")
            if (focused := await page.evaluate(FOCUSED)) is None:
                break
            name, style, width = focused
            assert style != "none", f"{name} shows no focus"
            assert width >= 2, f"{name} shows no focus"
            stops.append(name)
        else:
            pytest.fail(f"the focus does not come out: {stops}")
        assert stops == [
            "Skip to the controls", "show-code", "theme", "show-keys", "toggle", "view", "beside", "mode", "background",
            "upload", "Edges and framing", "device", "resolution", "way", "mirror",
        ]  # fmt: skip
        await page.focus("[name=mode]:checked")
        await page.keyboard.press("ArrowRight")
        await expect(page.locator("[name=mode][value=mask]")).to_be_checked()
        await expect(page.locator("#mode-hint")).to_contain_text("What the network sees")


async def test_a_dialog_keeps_the_focus_and_gives_it_back(service: RunningService, tmp_path: Path) -> None:
    async with browsing(service, tmp_path) as page:
        await page.focus("#show-code")
        await page.keyboard.press("Enter")
        inside = "document.activeElement === document.body || !!document.activeElement.closest('#code')"
        for _ in range(8):
            await page.keyboard.press("Tab")
            assert await page.evaluate(inside)
        await page.keyboard.press("Escape")
        await expect(page.locator("#code")).to_be_hidden()
        assert await page.evaluate("document.activeElement.id") == "show-code"
        await page.click("#show-keys")
        box = await page.locator("#keys").bounding_box()
        assert box
        await page.mouse.click(box["x"] + 4, box["y"] + 4)
        await page.mouse.move(box["x"] + 40, box["y"] + 100)
        await page.mouse.down()
        await page.mouse.move(10, 10)  # text is selected, and the end missed
        await page.mouse.up()
        await expect(page.locator("#keys")).to_be_visible()
        await page.mouse.click(10, 10)
        await expect(page.locator("#keys")).to_be_hidden()


async def test_single_keys_do_what_the_docs_say_and_can_be_switched_off(
    service: RunningService, tmp_path: Path
) -> None:
    async with browsing(service, tmp_path) as page:
        listed = await page.evaluate(
            "[...document.querySelectorAll('#key-list div')].map(({ children: [key, words] }) => "
            "[key.textContent, words.textContent])"
        )
        documented = re.findall(r"^\| `(.)` \| (.+?) \|$", DOCS.read_text(), re.MULTILINE)
        assert [tuple(each) for each in listed] == documented
        press = page.keyboard.press
        await press("s")
        await expect(page.locator("#state")).to_have_text("Live")
        await press("4")
        await expect(page.locator("[name=mode][value=mask]")).to_be_checked()
        await press("v")
        await expect(page.locator("[name=view][value=wipe]")).to_be_checked()
        await page.keyboard.down("m")
        await page.keyboard.down("m")  # held: once
        await page.keyboard.up("m")
        await expect(page.locator("#mirror")).not_to_be_checked()
        await press("d")
        await expect(page.locator("html")).to_have_attribute("data-theme", "light")
        await press("c")
        await expect(page.locator("#code")).to_be_visible()
        await press("s")  # inside of a dialog, keys are the dialog's
        await press("Escape")
        await expect(page.locator("#state")).to_have_text("Live")
        await page.focus("#way")
        await press("1")  # a field's own
        await press("Control+s")
        await expect(page.locator("[name=mode][value=mask]")).to_be_checked()
        await page.focus("#toggle")
        await press("?")
        await page.uncheck("#keys-on")
        await press("Escape")
        await press("1")
        await expect(page.locator("[name=mode][value=mask]")).to_be_checked()
        await page.reload()
        await press("1")
        await expect(page.locator("[name=mode][value=mask]")).to_be_checked()
        await page.click("#show-keys")
        await expect(page.locator("#keys-on")).not_to_be_checked()


async def test_what_happens_is_read_aloud(service: RunningService, tmp_path: Path) -> None:
    """By roles: what changes by itself stands in a live region, figures do not, and pictures have names."""
    async with browsing(service, tmp_path) as page:
        await expect(page.get_by_role("status").filter(has_text="Camera off")).to_be_visible()
        await expect(page.get_by_role("radiogroup").or_(page.get_by_role("group", name="Behind you"))).to_be_visible()
        for name in ("Blur", "Colour", "Picture", "Mask", "Matte"):
            await expect(page.get_by_role("radio", name=name, exact=True)).to_have_count(1)
        for name in ("Camera", "Size", "Work", "Compare with"):
            await expect(page.get_by_role("combobox", name=name, exact=True)).to_be_visible()
        await start(page)
        await expect(page.get_by_role("status").filter(has_text="Live")).to_be_visible()
        await expect(
            page.get_by_role("status").filter(has_text="The box makes the masks and the picture.")
        ).to_be_visible()
        await expect(page.get_by_role("figure", name="Your camera")).to_be_visible()
        await expect(page.get_by_role("figure", name="What others see")).to_be_visible()
        assert await page.evaluate("document.querySelector('.numbers').closest('[aria-live], [role=status]')") is None
        await page.evaluate(
            "document.getElementById('preview').srcObject.getTracks()[0].dispatchEvent(new Event('ended'))"
        )
        await expect(page.get_by_role("alert").filter(has_text="The camera is gone")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_is_light_or_dark_as_the_system_or_as_chosen(
    service: RunningService, tmp_path: Path, scheme: str
) -> None:
    dark = "getComputedStyle(document.body).backgroundColor === 'rgb(13, 16, 23)'"
    async with browsing(service, tmp_path, screen=Screen(scheme="dark" if scheme == "dark" else "light")) as page:
        assert await page.evaluate(dark) == (scheme == "dark")
        await expect(page.locator("#theme")).to_have_attribute("aria-label", "Appearance: as the system")
        for theme in ("light", "dark"):
            await page.click("#theme")
            assert await page.evaluate(dark) == (theme == "dark")
            await expect(page.locator("#theme")).to_have_attribute("aria-label", f"Appearance: {theme}")
            await page.reload()
            assert await page.evaluate(dark) == (theme == "dark"), "it is kept"
            await page.goto(f"http://127.0.0.1:{service.http_port}/trust")
            assert await page.evaluate(dark) == (theme == "dark"), "and on the other page"
            await page.click("text=Back to the camera")
            await expect(page.locator("#theme")).to_have_attribute("aria-label", f"Appearance: {theme}")
        await page.click("#theme")
        assert await page.evaluate(dark) == (scheme == "dark")
        await page.evaluate("Object.defineProperty(window, 'localStorage', { get() { throw new Error('none'); } })")
        await page.click("#theme")
        await expect(page.locator("#theme")).to_have_attribute("aria-label", "Appearance: light")


@needs_firefox
async def test_axe_finds_nothing_in_firefox(service: RunningService) -> None:
    async with SHARED[-1].firefox(f"http://127.0.0.1:{service.http_port}/") as page:
        await page.evaluate(f"(() => {{ {AXE.read_text()} }})()")
        assert await page.evaluate(f"({LOOK})()") == []
