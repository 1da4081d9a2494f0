"""The pages of docs/use/browser.md in headless Chromium, as they stand there."""

import asyncio
import re
from asyncio import timeout
from pathlib import Path

import pytest
from playwright.async_api import Page, Route

from portrait.server.app import RunningService
from tests.browser import open_page, write_camera
from tests.people import clip

pytestmark = pytest.mark.usefixtures("no_sockets_left")

EXAMPLES = re.findall(
    r"```html\n(.+?)```", (Path(__file__).parents[1] / "docs" / "use" / "browser.md").read_text(), re.DOTALL
)

PERSON_SHOWN = """(() => {
  const shown = document.querySelector("video, canvas");
  if (!shown || !(shown.videoWidth || shown.width)) return false;
  const paper = document.createElement("canvas");
  [paper.width, paper.height] = [64, 48];
  const pen = paper.getContext("2d");
  pen.drawImage(shown, 0, 0, 64, 48);
  const { data } = pen.getImageData(0, 0, 64, 48);
  const alphas = new Set(), greys = [];
  for (let i = 0; i < data.length; i += 4) (alphas.add(data[i + 3]), greys.push(data[i]));
  return alphas.has(255) && Math.max(...greys) - Math.min(...greys) > 60;
})()"""


async def page_with(example: str, service: RunningService, page: Page) -> list[str]:
    """Open a page that the box serves itself; what it says on its console."""
    url, said = f"http://127.0.0.1:{service.http_port}/example.html", list[str]()

    async def answer(route: Route) -> None:
        await route.fulfill(body=example, content_type="text/html")

    await page.route(url, answer)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    await page.goto(url)
    return said


def test_there_are_three() -> None:
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize("number", range(3))
async def test_an_example_shows_the_person(number: int, service: RunningService, tmp_path: Path) -> None:
    write_camera(tmp_path / "camera.y4m", clip(640, 480, 30))
    async with open_page("about:blank", tmp_path / "profile", tmp_path / "camera.y4m") as page:
        said = await page_with(EXAMPLES[number], service, page)
        async with timeout(60):
            while not await page.evaluate(PERSON_SHOWN):
                await asyncio.sleep(0.1)
        if number == 1:
            await page.select_option("#mode", "color")
            await page.set_input_files("#file", Path(__file__).parents[1] / "docs" / "pictures" / "astronaut.jpg")
            await page.select_option("#mode", "image")
        if number == 2:
            assert re.match(r"(box|browser): an inference takes", await page.inner_text("#where"))
            async with timeout(60):
                while not any("framesPerSecond" in line for line in said):
                    await asyncio.sleep(0.1)
        await asyncio.sleep(0.5)
        assert not [line for line in said if line.startswith("error:")]
