"""The wall: cameras and published streams on the page, watched when they are asked for, and told of in words."""

import re
from pathlib import Path
from subprocess import DEVNULL

from playwright.async_api import expect

from portrait.server.app import run_service
from portrait.settings import Settings
from tests.boxes import serving
from tests.browser import open_page
from tests.films import film, needs_gstreamer, rtsp_camera, undecodable
from tests.http_camera import http_camera
from tests.origins import elsewhere
from tests.people import Clip
from tests.ports import free_port
from tests.test_cameras import until_state
from tests.test_page_access import faults
from tests.whip import publisher, shown

__all__ = ["shown"]  # a fixture

README = Path(__file__).parents[1] / "README.md"

CORNER = """() => {
  const video = document.querySelector("#streams video");
  if (!video.videoWidth) return [0, 0, 0];
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  return [...canvas.getContext("2d").getImageData(4, 4, 1, 1).data.slice(0, 3)];
}"""

IS_GREEN = f"() => {{ const [r, g, b] = ({CORNER})(); return g > 200 && r < 80 && b < 80 }}"


async def test_a_camera_is_watched_on_the_page_and_left_again(tmp_path: Path, shown: Clip) -> None:
    file = tmp_path / "cameras.yaml"
    async with http_camera(shown.frames[0]) as camera:
        deaf = camera.url.replace("video.mjpg", "sound.wav")
        file.write_text(
            f"door: {{url: '{camera.url}', mode: color, color: '#00ff00'}}\n"
            f"gone: 'rtsp://127.0.0.1:{free_port()}/x'\ndeaf: '{deaf}'\n"
        )
        settings = Settings(http_port=0, grpc_port=0, drain_seconds=0.0, media_ports="0-0", cameras=file)
        async with (
            run_service(settings) as service,
            open_page(f"http://127.0.0.1:{service.http_port}/", tmp_path / "profile", None) as page,
        ):
            await expect(page.locator("#streams li")).to_have_count(3)
            assert camera.opened == 0
            await page.get_by_role("button", name="Watch door").click()
            await page.wait_for_function(IS_GREEN)
            await expect(page.locator("#streams li").first).to_contain_text("mjpeg 320x240, somebody is there")
            for name, words in (("gone", "nothing listens at this address"), ("deaf", "there is no video")):
                await page.get_by_role("button", name=f"Watch {name}").click()
                await expect(page.locator("#streams li", has_text=name)).to_contain_text(words)
            assert not await faults(page)
            await page.get_by_role("button", name="Stop door").click()
            await expect(page.get_by_role("button", name="Watch door")).to_be_visible()


@needs_gstreamer
async def test_the_page_says_in_words_that_a_cameras_codec_cannot_be_decoded(tmp_path: Path) -> None:
    words = "the video has a codec that cannot be decoded"
    source, file = film(tmp_path / "film.mp4", 60), tmp_path / "cameras.yaml"
    undecodable(source, tmp_path / "odd.ts")
    async with elsewhere(tmp_path) as origin:
        with rtsp_camera(source, called="AVS3") as url:
            file.write_text(f"door: '{url}'\nyard: '{origin}/odd.ts'\n")
            settings = Settings(http_port=0, grpc_port=0, drain_seconds=0.0, media_ports="0-0", cameras=file)
            async with (
                run_service(settings) as service,
                open_page(f"http://127.0.0.1:{service.http_port}/", tmp_path / "profile", None) as page,
            ):
                for name in ("door", "yard"):
                    await page.get_by_role("button", name=f"Watch {name}").click()
                    await expect(page.locator("#streams li", has_text=name)).to_contain_text(words)
                    assert (await until_state(service, name, "failed"))["words"] == words
                assert not await faults(page)


async def test_a_stream_that_is_published_is_watched_on_the_page_until_it_ends(tmp_path: Path, shown: Clip) -> None:
    settings = Settings(http_port=0, grpc_port=0, drain_seconds=0.0)
    async with run_service(settings) as service:
        url = f"http://127.0.0.1:{service.http_port}"
        async with open_page(f"{url}/", tmp_path / "profile", None) as page:
            await expect(page.locator("#wall")).to_be_hidden()
            async with publisher(url, shown) as one:
                await one.connect("/whip/desk?mode=color&color=%2300ff00")
                desk = page.locator("#streams li")
                await expect(desk).to_contain_text("published")
                await page.get_by_role("button", name="Watch desk").click()
                await page.wait_for_function(IS_GREEN)
                await expect(desk).to_contain_text("published, 320x240, somebody is there")
            await expect(desk).to_contain_text("'desk' is not published now")
            await page.get_by_role("button", name="Stop desk").click()
            await expect(page.locator("#wall")).to_be_hidden()


@needs_gstreamer
async def test_the_command_of_the_readme_shows_a_camera_on_the_page(tmp_path: Path) -> None:
    """As it is written, but for the address, which is a camera's on the reader's network."""
    found = re.search(r"`portrait serve (--camera \w+=)(rtsp://[^\s`]+)`", README.read_text())
    assert found is not None
    with (
        rtsp_camera(film(tmp_path / "film.mp4", 60)) as url,
        serving(*f"{found[1]}{url}".split(), stderr=DEVNULL) as (_, announced),
    ):
        async with open_page(announced["page"], tmp_path / "profile", None) as page:
            await page.get_by_role("button", name="Watch door").click()
            await page.wait_for_function("() => document.querySelector('#streams video').videoWidth === 320")
            await expect(page.locator("#streams li")).to_contain_text("h264 320x240")
