"""What the page gives as code of what is on screen: run as it stands, it shows the same."""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.async_api import Page, expect

from portrait.server.app import RunningService, run_service
from portrait.settings import Settings
from tests.browser import open_page
from tests.credentials import TOKEN, authority, tokens
from tests.origins import elsewhere
from tests.pages import (
    INSIDE,
    NEVER,
    SHOWN,
    browsers,
    browsing,
    choose,
    detail,
    mean,
    nothing_left,
    person_is_kept,
    room_is,
    service,
    start,
    until,
)
from tests.people import Array

__all__ = ["authority", "browsers", "nothing_left", "service", "tokens"]  # fixtures

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("nothing_left")]

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Look:
    """What is chosen on the page, and the colour it gives the room (BGR), unless it is a picture of many."""

    mode: str
    room: tuple[int, int, int] | None = None
    own: bool = False
    way: str = "composite"
    soft: bool = False
    """Its edges are as soft as can be, and have the person's own colours."""

    def __str__(self) -> str:
        return f"{self.mode}-{self.way}{'-own' * self.own}{'-soft' * self.soft}"


LOOKS = [
    Look("color", (0xC0, 0x40, 0x20)),
    Look("image", (40, 200, 240), own=True),
    Look("image", way="data"),
    Look("blur"),
    Look("alpha", (0, 0, 0), soft=True),
]


_COLORS = [mean(frame, INSIDE) for frame in SHOWN.frames]
MOVEMENT = float(max(np.abs(one - other).max() for one in _COLORS for other in _COLORS))
"""How far the person's mean colour of one frame is from that of another."""


async def shown_with(page: Page, look: Look, tmp_path: Path) -> Array:
    """Choose it, start, and give what the page shows then."""
    await choose(page, look.mode)
    await page.select_option("#way", look.way)
    if look.mode == "color":
        await page.locator("#color").fill("#2040c0")
    if look.mode == "image":
        await page.click("[data-name=paper]")
    if look.own:
        cv2.imwrite(str(tmp_path / "my wall.png"), np.full((540, 960, 3), look.room, np.uint8))
        await page.set_input_files("#upload", tmp_path / "my wall.png")
    if look.soft:
        await page.click(".edges summary")
        await page.locator("#feather").fill("0.5")
        await page.check("#decontaminate")
    await start(page)
    camera_room, camera_detail = mean(SHOWN.frames[0], NEVER), detail(SHOWN.frames[0])

    def as_chosen(seen: Array) -> bool:
        # Before the first mask nobody is shown: that is not it yet.
        if not (mean(seen, INSIDE).min() > 240 if look.mode in ("mask", "alpha") else person_is_kept(seen)):
            return False
        if look.room:
            return room_is(look.room)(seen)
        if look.mode == "blur":
            return detail(seen) < 0.4 * camera_detail
        return bool(np.abs(mean(seen, NEVER) - camera_room).max() > 8)

    return await until(page, "as chosen", as_chosen)


async def allow_clipboard(page: Page) -> None:
    """To be asked before the camera is opened: what is not named is taken away."""
    await page.context.grant_permissions(["clipboard-read", "clipboard-write", "camera"])


async def code(page: Page, language: str) -> str:
    """What its button copies."""
    await page.click("#show-code")
    await page.locator(f"[name=language][value={language}]").check(force=True)
    await page.click("#copy")
    await expect(page.locator("#copied")).to_have_text("Copied")
    copied: str = await page.evaluate("navigator.clipboard.readText()")
    assert copied == await page.locator("#code-text").text_content()
    await page.keyboard.press("Escape")
    return copied


async def run(folder: Path, *command: str, **environ: str) -> str:
    """What a program says that ends well."""
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}/service:{ROOT}/clients/python", **environ}
    program = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=given, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(program.communicate(), 120)
    assert program.returncode == 0, said.decode()
    return said.decode()


def like(picture: Array, seen: Array) -> bool:
    """Whether both show the same room and the same person, who moves: frames of one clip differ by as much."""
    size = (seen.shape[1], seen.shape[0])
    picture = np.asarray(cv2.resize(picture, size), np.uint8)
    room, person = (float(np.abs(mean(picture, where) - mean(seen, where)).max()) for where in (NEVER, INSIDE))
    return room < 16 and person < 16 + MOVEMENT


@pytest.mark.parametrize("look", LOOKS, ids=str)
async def test_the_code_of_what_is_on_screen_shows_the_same(settings: Settings, tmp_path: Path, look: Look) -> None:
    """The page from another origin in a browser, the Python client on a film, curl on a still."""
    async with (
        elsewhere(tmp_path) as origin,
        run_service(settings.model_copy(update={"origins": origin})) as service,
    ):
        async with browsing(service, tmp_path) as page:
            await allow_clipboard(page)
            seen = await shown_with(page, look, tmp_path)
            texts = {language: await code(page, language) for language in ("page", "python", "shell")}
            assert {look.soft} == {"feather" in text and "decontaminate" in text for text in texts.values()}
            await page.click("#toggle")
            await expect(page.locator("#state")).to_have_text("Camera off")
            (tmp_path / "page.html").write_text(texts["page"])
            said = list[str]()
            page.on("pageerror", lambda error: said.append(str(error)))
            await page.goto(f"{origin}/page.html")
            await until(page, "the same", lambda picture: like(picture, seen))
            assert not said

        write_film(tmp_path / "film.avi")
        (tmp_path / "stream.py").write_text(texts["python"])
        said = await run(tmp_path, sys.executable, "stream.py", "film.avi")
        assert "(480, 640" in said
        assert like(np.asarray(cv2.imread(str(tmp_path / "portrait.png")), np.uint8), seen)

        (tmp_path / "portrait.png").unlink()
        cv2.imwrite(str(tmp_path / "me.jpg"), SHOWN.frames[0])
        await run(tmp_path, "sh", "-c", texts["shell"])
        assert like(np.asarray(cv2.imread(str(tmp_path / "portrait.png")), np.uint8), seen)


def write_film(path: Path) -> None:
    film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (640, 480))
    for frame in SHOWN.frames[:20]:
        film.write(frame)
    film.release()


async def test_the_code_has_what_stands_beside_and_how(service: RunningService, tmp_path: Path) -> None:
    """The mirror, the camera beside the result, another session beside it, or nothing."""
    async with browsing(service, tmp_path) as page:
        await allow_clipboard(page)
        text = await code(page, "page")
        assert text.count("scaleX(-1)") == 2
        assert 'getElementById("beside").srcObject = camera;' in text
        assert 'mode: "blur"' in text
        await page.uncheck("#mirror")
        await page.select_option("#beside", "mode:mask")
        text = await code(page, "page")
        assert "scaleX" not in text
        assert 'getElementById("beside").srcObject = other.output;' in text
        assert text.index('mode: "blur"') < text.index('mode: "mask"')
        await page.select_option("#beside", "way:browser")
        assert 'where: "browser"' in await code(page, "page")
        await page.locator("[name=view][value=single]").check(force=True)
        assert "beside" not in await code(page, "page")


async def test_without_a_clipboard_the_code_is_selected(service: RunningService, tmp_path: Path) -> None:
    async with browsing(service, tmp_path) as page:
        await page.evaluate("navigator.clipboard.writeText = () => Promise.reject(new Error('no')), true")
        await page.click("#show-code")
        await page.click("#copy")
        await expect(page.locator("#copied")).to_contain_text("Selected: press Ctrl C")
        assert "connect(camera" in await page.evaluate("getSelection().toString()")


async def test_the_code_for_a_secured_box_brings_token_and_authority(
    settings: Settings, tokens: Path, tmp_path: Path
) -> None:
    """A box with tokens and its own authority: Python and curl are run with both."""
    secured = settings.model_copy(update={"tls": "auto", "tokens": tokens, "data": tmp_path / "data"})
    async with run_service(secured) as running:
        look = """(async () => {
          const [code, choice] = await Promise.all(["code", "choice"].map((name) => import(`/web/page/${name}.js`)));
          const about = await (await fetch(location.origin + "/v1/about")).json();
          const scene = { choice: choice.recallChoice(), about, origin: location.origin, hostname: location.hostname };
          return [code.toPython(scene), code.toShell(scene), code.toPage(scene)];
        })()"""
        url = f"https://user:{TOKEN}@localhost:{running.http_port}/"
        async with open_page(url, tmp_path / "profile", None, extra=["--ignore-certificate-errors"]) as page:
            python, shell, html = await page.evaluate(look)
            await expect(page.locator("#gallery label")).to_have_count(5)
        assert 'token: "YOUR TOKEN"' in html
        (authority_file,) = (tmp_path / "data").rglob("ca.crt")
        (tmp_path / "ca.crt").write_bytes(authority_file.read_bytes())
        (tmp_path / "stream.py").write_text(python)
        write_film(tmp_path / "film.avi")
        assert "(480, 640, 3)" in await run(tmp_path, sys.executable, "stream.py", "film.avi", TOKEN=TOKEN)
        (tmp_path / "portrait.png").unlink()
        cv2.imwrite(str(tmp_path / "me.jpg"), SHOWN.frames[0])
        await run(tmp_path, "sh", "-c", shell, TOKEN=TOKEN)
        assert cv2.imread(str(tmp_path / "portrait.png")).shape == (480, 640, 3)
