"""docs/use/getting-started.md and the README's Python, run as they stand there."""

import re
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest

from portrait.server.app import RunningService
from tests.browser import open_page, write_camera
from tests.pages import SHOWN, detail, until
from tests.snippets import ROOT, blocks, folder, placed, run, run_shell

__all__ = ["folder"]  # fixture

PAGE = ROOT / "docs" / "use" / "getting-started.md"


def here(text: str, service: RunningService) -> str:
    """The text with the addresses of the service under test."""
    return placed(text, service.http_port, service.grpc_port)


@pytest.mark.parametrize("number", range(len(blocks(PAGE, "sh"))))
async def test_its_commands_end_well_and_write_what_they_say(
    number: int, service: RunningService, folder: Path
) -> None:
    block = blocks(PAGE, "sh")[number]
    await run_shell(folder, here(block, service))
    size = cv2.imread(str(folder / "me.jpg")).shape[:2]
    written = [word for word in block.split() if re.fullmatch(r"[\w-]+\.(png|jpg)", word) and word != "me.jpg"]
    for name in written:
        picture = np.asarray(cv2.imread(str(folder / name), cv2.IMREAD_UNCHANGED))
        assert picture.shape[:2] == size, name
        assert picture.std() > 10, name


async def test_its_python_streams(service: RunningService, folder: Path) -> None:
    [program] = blocks(PAGE, "python")
    (folder / "stream.py").write_text(here(program, service))
    lines = (await run(folder, sys.executable, "stream.py")).splitlines()
    assert len(lines) == 30
    assert "(192, 192)" in lines[-1]


async def test_the_readmes_python_streams(service: RunningService, folder: Path) -> None:
    [program] = blocks(ROOT / "README.md", "python")
    (folder / "readme.py").write_text(textwrap.dedent(here(program, service)))
    assert "(192, 192)" in await run(folder, sys.executable, "readme.py")


async def test_its_page_shows_the_camera_before_a_blurred_room(service: RunningService, tmp_path: Path) -> None:
    """On an origin of the service's own, which the camera is given to."""
    [page_text] = blocks(PAGE, "html")
    write_camera(tmp_path / "camera.y4m", SHOWN)
    url = f"http://localhost:{service.http_port}/"
    async with open_page(url, tmp_path / "profile", tmp_path / "camera.y4m") as page:
        await page.route(
            "**/mine.html", lambda route: route.fulfill(body=here(page_text, service), content_type="text/html")
        )
        await page.goto(f"{url}mine.html")
        sharp = detail(SHOWN.frames[0])
        await until(page, "blurred", lambda seen: detail(seen) < 0.4 * sharp)
