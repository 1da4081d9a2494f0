"""The npm package: what it holds, its types, and its tracks in headless Chromium, with LiveKit's own client too."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page

from portrait import __version__
from portrait.server.app import RunningService, run_service
from portrait.settings import Settings
from tests.browser import Browsers, browsers
from tests.origins import elsewhere
from tests.pages import SHOWN, detail, emptied, room_is, until
from tests.people import Array

__all__ = ["browsers"]  # a fixture

in_chromium = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "clients" / "js"
MODULES = ROOT / "tests" / "node" / "node_modules"
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

if not (MODULES / "livekit-client").exists():
    pytest.skip("npm's packages are missing: run make tests/node/node_modules/ready", allow_module_level=True)


def run(*command: str | Path, folder: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PATH": PATH})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose node_modules hold the package as npm installs it, and livekit-client."""
    folder = tmp_path_factory.mktemp("site")
    run("node", SOURCES / "build.mjs", folder / "built")
    packed = run("npm", "pack", "--silent", "--pack-destination", folder, folder / "built").strip()
    (folder / "node_modules" / "portrait-client").mkdir(parents=True)
    run("tar", "-xzf", folder / packed, "--strip-components=1", "-C", folder / "node_modules" / "portrait-client")
    (folder / "node_modules" / "livekit-client").symlink_to(MODULES / "livekit-client")
    shutil.copy(MODULES / "livekit-client" / "dist" / "livekit-client.esm.mjs", folder)
    return folder


def test_the_package_holds_the_servers_modules_with_their_types(site: Path) -> None:
    package = site / "node_modules" / "portrait-client"
    description = json.loads((package / "package.json").read_text())
    assert (description["name"], description["version"]) == ("portrait-client", __version__)
    assert "dependencies" not in description
    for module in (ROOT / "service" / "portrait" / "web" / "portrait").glob("*.js"):
        assert (package / "portrait" / module.name).read_bytes() == module.read_bytes()
        assert (package / "portrait" / module.name).with_suffix(".d.ts").exists()
    for entry in description["exports"].values():
        assert (package / entry["types"]).exists()
        assert (package / entry["default"]).exists()


def test_a_typescript_program_is_checked_strictly(site: Path) -> None:
    shutil.copytree(SOURCES / "examples", site / "examples")
    run(MODULES / ".bin" / "tsc", "--project", site / "examples")
    wrong = 'import { connect } from "portrait-client";\nvoid connect(new MediaStream(), { mode: "sepia" });\n'
    (site / "examples" / "wrong.ts").write_text(wrong)
    with pytest.raises(AssertionError, match="sepia"):
        run(MODULES / ".bin" / "tsc", "--project", site / "examples")


PAGE = """<!doctype html>
<script type="importmap">{ "imports": {
  "portrait-client": "/node_modules/portrait-client/index.js",
  "portrait-client/track": "/node_modules/portrait-client/portrait/track.js",
  "portrait-client/livekit": "/node_modules/portrait-client/portrait/livekit.js",
  "livekit-client": "/livekit-client.esm.mjs"
} }</script>
<video id="result" autoplay muted playsinline></video>
<script type="module">
  Object.assign(globalThis, {
    livekit: await import("livekit-client"),
    ...(await import("portrait-client/track")),
    ...(await import("portrait-client/livekit")),
    show: (track) => (document.getElementById("result").srcObject = new MediaStream([track])),
    camera: async () => {
      const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
      return stream.getVideoTracks()[0];
    },
  });
  globalThis.loaded = true;
</script>
"""


@pytest_asyncio.fixture(loop_scope="module")
async def page(site: Path, browsers: Browsers) -> AsyncIterator[tuple[Page, str, RunningService]]:
    """A page of another origin that has loaded the package and livekit-client, and the service it may use."""
    async with elsewhere(site, PAGE) as origin:
        settings = Settings(http_port=0, grpc_port=0, media_ports="0-0", drain_seconds=0.0, origins=origin)
        async with run_service(settings) as service, browsers.chromium(origin, SHOWN) as opened:
            await opened.wait_for_function("globalThis.loaded")
            yield opened, f"http://127.0.0.1:{service.http_port}", service
            await emptied(service)


def blurred(picture: Array) -> bool:
    return picture.shape == SHOWN.frames[0].shape and detail(picture) < 0.4 * detail(SHOWN.frames[0])


blue = room_is((0xC0, 0x40, 0x20))


@in_chromium
@pytest.mark.parametrize("result", ["composite", "data"])
async def test_a_track_stays_the_same_track_while_connections_come_and_go(
    page: tuple[Page, str, RunningService], result: str
) -> None:
    tab, url, service = page
    options = {"server": url, "result": result, "mode": "blur"}
    await tab.evaluate(
        """async (options) => {
          globalThis.given = await camera();
          globalThis.track = await processTrack(given, options);
          track.addEventListener("ended", () => (globalThis.hasEnded = true));
          show(track);
        }""",
        options,
    )
    await until(tab, "blurred", blurred)
    for session in list(service.sessions.describe()):
        service.sessions[session["id"]].end("lost, for a test")
    await tab.wait_for_function("sessionOf(track).state !== 'live'")
    await tab.evaluate("sessionOf(track).wear({ mode: 'color', color: '#2040c0' })")
    await until(tab, "blue", blue)
    assert await tab.evaluate("[track.readyState, given.readyState]") == ["live", "live"]
    await tab.evaluate("track.stop()")
    await emptied(service)
    assert await tab.evaluate("[sessionOf(track).state, given.readyState, hasEnded]") == ["closed", "live", True]


@in_chromium
async def test_a_cameras_end_ends_its_track(page: tuple[Page, str, RunningService]) -> None:
    tab, url, service = page
    await tab.evaluate(
        """async (server) => {
          globalThis.given = await camera();
          globalThis.track = await processTrack(given, { server });
        }""",
        url,
    )
    await tab.evaluate("given.stop()")
    await tab.wait_for_function("track.readyState === 'ended'")
    await emptied(service)


@in_chromium
async def test_livekit_publishes_the_processed_track(page: tuple[Page, str, RunningService]) -> None:
    """LiveKit's own track: given the processor, restarted with another camera, and freed of it."""
    tab, url, service = page
    await tab.evaluate(
        """async (server) => {
          globalThis.processor = new PortraitProcessor({ server, result: "data", mode: "blur" });
          const resolution = { width: 640, height: 480 };
          globalThis.local = await livekit.createLocalVideoTrack({ resolution });
          await local.setProcessor(processor);
          local.attach(document.getElementById("result"));
        }""",
        url,
    )
    assert await tab.evaluate("local.mediaStreamTrack === processor.processedTrack")
    await until(tab, "blurred", blurred)
    await tab.evaluate("processor.session.wear({ mode: 'color', color: '#2040c0' })")
    await until(tab, "blue", blue)
    first = await tab.evaluate("local.mediaStreamTrack.id")
    await tab.evaluate("local.restartTrack({ resolution: { width: 640, height: 480 } })")
    assert await tab.evaluate("local.mediaStreamTrack.id") != first
    await until(tab, "blurred", blurred)
    await tab.evaluate("local.stopProcessor()")
    await emptied(service)
    assert await tab.evaluate("[processor.session === undefined, local.mediaStreamTrack.readyState]") == [True, "live"]


@in_chromium
async def test_livekit_learns_of_a_refusal_and_has_shown_nothing(page: tuple[Page, str, RunningService]) -> None:
    tab, url, _ = page
    refused = """async (server) => {
      globalThis.local = await livekit.createLocalVideoTrack();
      const processor = new PortraitProcessor({ server, model: "none" });
      return local.setProcessor(processor).then(() => "taken", (error) => `${error.name} ${error.reason}`);
    }"""
    assert await tab.evaluate(refused, url) == "PortraitError BAD_OPTION"
