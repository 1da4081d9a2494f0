"""A person's own picture as their background: chosen, dropped, too large, or none at all."""

import base64
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.async_api import expect

from portrait.server.app import RunningService
from tests.pages import browsers, browsing, choose, nothing_left, person_is_kept, room_is, says, service, start, until

__all__ = ["browsers", "nothing_left", "service"]  # fixtures

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("nothing_left")]


def bomb(path: Path, side: int) -> None:
    """A small file that says it is a PNG of side x side grey pixels, and is."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    rows = zlib.compress(bytes(1 + (side + 7) // 8) * side, 9)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(data)


async def test_a_person_can_bring_their_own_picture(service: RunningService, tmp_path: Path) -> None:
    """Made small in the page; before the call, in it, again, and dropped."""
    for name, color in (("mine", (40, 200, 240)), ("other", (200, 60, 60))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((1800, 3200, 3), color, np.uint8))
    async with browsing(service, tmp_path) as page:
        await choose(page, "image")
        await expect(page.locator("#limits")).to_contain_text("up to 25 MB and 25 megapixels")
        await page.set_input_files("#upload", tmp_path / "mine.png")
        await expect(page.locator("[data-name=''] input")).to_be_checked()
        await start(page)
        await until(page, "before the own picture", lambda seen: room_is((40, 200, 240))(seen) and person_is_kept(seen))
        await page.set_input_files("#upload", tmp_path / "other.png")
        await until(page, "before the other one", lambda seen: room_is((200, 60, 60))(seen) and person_is_kept(seen))
        await expect(page.locator("[data-name='']")).to_have_count(1)
        await page.click("[data-name=paper]")
        await expect(page.locator("[data-name=''] input")).not_to_be_checked()
        await page.click("[data-name='']")
        await until(page, "the own one again", room_is((200, 60, 60)))
        size = """import("/web/page/gallery.js").then(async ({ shrink }) => {
          const canvas = Object.assign(document.createElement("canvas"), { width: 3200, height: 1800 });
          const blob = await new Promise((resolve) => canvas.toBlob(resolve));
          const small = await shrink(new File([blob], "x.png", { type: "image/png" }), { bytes: 1e8, pixels: 1e8 });
          const { width, height } = await createImageBitmap(small);
          return [small.type, width, height];
        })"""
        assert await page.evaluate(size) == ["image/jpeg", 1920, 1080]
        drop = """() => {
          const transfer = new DataTransfer();
          transfer.items.add(new File(["x"], "notes.txt", { type: "text/plain" }));
          const dropped = new DragEvent("drop", { dataTransfer: transfer, bubbles: true });
          document.getElementById("drop").dispatchEvent(dropped);
        }"""
        await page.evaluate(drop)
        await says(page, "The box does not accept this kind of file", "Choose a JPEG, PNG or WebP file.")
        await until(page, "the own one still", room_is((200, 60, 60)))
        await choose(page, "blur")
        missed = """(base64) => {
          const transfer = new DataTransfer();
          const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
          transfer.items.add(new File([bytes], "mine.png", { type: "image/png" }));
          return ["dragover", "drop"].map((type) => {
            const event = new DragEvent(type, { dataTransfer: transfer, bubbles: true, cancelable: true });
            return document.getElementById("stage").dispatchEvent(event);
          });
        }"""
        mine = base64.b64encode((tmp_path / "mine.png").read_bytes()).decode()
        assert await page.evaluate(missed, mine) == [False, False], "the browser would leave the page for it"
        await until(page, "before what was dropped on the stage", room_is((40, 200, 240)))


async def test_a_picture_that_cannot_be_used_is_explained(service: RunningService, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "large.jpg").write_bytes(bytes(26_000_000))
    bomb(tmp_path / "bomb.png", 6000)
    async with browsing(service, tmp_path) as page:
        await choose(page, "image")
        for name, title, said in (
            ("text.png", "This file cannot be read as a picture", "text.png, 1 KB"),
            ("large.jpg", "This picture is too large", "large.jpg, 26 MB"),
            ("bomb.png", "This picture is too large", "bomb.png, 6000 × 6000"),
        ):
            await page.set_input_files("#upload", tmp_path / name)
            await expect(page.locator("#problem strong")).to_have_text(title)
            await expect(page.locator("#problem small")).to_have_text(said)
        await expect(page.locator("[data-name='']")).to_have_count(0)
