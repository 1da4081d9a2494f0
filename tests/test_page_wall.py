"""The wall: the box's cameras on its page, each watched when it is asked for, and told of in words when it fails."""

from pathlib import Path

from playwright.async_api import expect

from portrait.server.app import run_service
from portrait.settings import Settings
from tests.browser import open_page
from tests.http_camera import http_camera
from tests.people import Clip
from tests.ports import free_port
from tests.whip import shown

__all__ = ["shown"]  # a fixture

CORNER = """() => {
  const video = document.querySelector("#cameras video");
  if (!video.videoWidth) return [0, 0, 0];
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  return [...canvas.getContext("2d").getImageData(4, 4, 1, 1).data.slice(0, 3)];
}"""


async def test_a_camera_is_watched_on_the_page_and_left_again(tmp_path: Path, shown: Clip) -> None:
    file = tmp_path / "cameras.yaml"
    async with http_camera(shown.frames[0]) as camera:
        file.write_text(
            f"door: {{url: '{camera.url}', mode: color, color: '#00ff00'}}\ngone: 'rtsp://127.0.0.1:{free_port()}/x'\n"
        )
        settings = Settings(http_port=0, grpc_port=0, drain_seconds=0.0, media_ports="0-0", cameras=file)
        async with (
            run_service(settings) as service,
            open_page(f"http://127.0.0.1:{service.http_port}/", tmp_path / "profile", None) as page,
        ):
            await expect(page.locator("#cameras li")).to_have_count(2)
            assert camera.opened == 0
            await page.get_by_role("button", name="Watch door").click()
            await page.wait_for_function(
                f"() => {{ const [r, g, b] = ({CORNER})(); return g > 200 && r < 80 && b < 80 }}"
            )
            await expect(page.locator("#cameras li").first).to_contain_text("mjpeg 320x240, somebody is there")
            await page.get_by_role("button", name="Watch gone").click()
            await expect(page.locator("#cameras li").last).to_contain_text("nothing listens at this address")
            await page.locator("#wall").screenshot(path=tmp_path / "wall.png")
            await page.get_by_role("button", name="Stop door").click()
            await expect(page.get_by_role("button", name="Watch door")).to_be_visible()
