"""/portrait.js in real browsers: three ways to get the result, pairing, failing closed, coming back."""

import asyncio
import base64
import json
import re
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import pytest

from portrait.app import Running, run_service
from portrait.client import Client
from portrait.compositors import MODES, Options, open_compositor
from portrait.frame import Frame, Timestamp
from portrait.mask import Mask
from portrait.pictures import bgr_from_frame, frame_from_bgr
from portrait.settings import Settings
from tests.browser import open_page
from tests.fakes import FakeModel
from tests.firefox import needs_firefox, open_firefox
from tests.people import Array, clip, iou, room
from tests.rtc import fake_service

pytestmark = pytest.mark.usefixtures("no_sockets_left")

TESTS = Path(__file__).parent
KIT = (TESTS / "web" / "kit.js").read_text()
MODULES = TESTS.parent / "service" / "portrait" / "transports" / "web"
TSC = TESTS / "node" / "node_modules" / ".bin" / "tsc"

BROWSERS = ["chromium", pytest.param("firefox", marks=needs_firefox)]


class Tab(Protocol):
    async def evaluate(self, expression: str) -> Any: ...


@asynccontextmanager
async def tab(browser: str, url: str, folder: Path, *extra: str) -> AsyncIterator[Tab]:
    """The box's page in a browser, not started, and the tests' own tools in it."""
    if browser == "firefox":
        async with open_firefox(url, folder / "firefox", webgl="no-webgl" not in extra) as firefox:
            await firefox.evaluate(f"(() => {{ {KIT} }})()")
            yield firefox
    else:
        flags = ["--disable-3d-apis"] if "no-webgl" in extra else []
        async with open_page(url, folder / "chromium", None, extra=flags) as page:
            await page.evaluate(f"(() => {{ {KIT} }})()")
            yield page


def number_in(luma: Any) -> int:
    """What kit.js has drawn into a frame."""
    height, width = luma.shape
    middles = [int((bit + 0.5) * width / 5) for bit in range(5)]
    return sum(int(luma[: height // 5, x - 4 : x + 4].mean() > 128) << bit for bit, x in enumerate(middles))


LEAST = 5
"""Columns of the mask of number 0, of 32: thinner ones are lost where masks are brought to the picture's edges."""


def bar(frame: Frame) -> Mask:
    """The upper quarter, where the number stands, and below as many columns more than LEAST as it says."""
    values = np.zeros((192, 192), np.uint8)
    values[:48] = 255
    values[48:, : 6 * (LEAST + number_in(frame.y))] = 255
    return Mask(values)


def bars(segment: Callable[[Frame], Mask] = bar) -> FakeModel:
    """A model of the embedded one's size that finds bars."""
    model = FakeModel(segment)
    model.width = model.height = 192
    return model


class Valve:
    """A network that hangs until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def __call__(self, frame: Frame) -> Mask:
        assert self.opened.wait(60), "nobody opened the valve"
        return bar(frame)


async def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("result", ["composite", "mask", "data"])
@pytest.mark.parametrize("browser", BROWSERS)
async def test_every_frame_is_shown_with_its_own_mask_at_the_cameras_size(
    browser: str, result: str, tmp_path: Path
) -> None:
    """The number in the picture and the mask that was made of it are the same, whatever came between."""
    async with fake_service(bars()) as (url, _), tab(browser, url, tmp_path) as page:
        options = {"result": result, "mode": "color", "color": "#000000"}
        state = await page.evaluate(f"kit.connect({json.dumps(options)})")
        assert state == {"where": "box", "result": result, "reason": "", "state": "live"}
        await page.evaluate("kit.watch(10)")
        frames = await page.evaluate("kit.watch(40)")
        assert len(frames) == 40
        if result != "composite":  # there, the browser may send a smaller picture
            assert {tuple(frame["size"]) for frame in frames} == {(640, 360)}
        wrong = [frame for frame in frames if abs(frame["columns"] - LEAST - frame["number"]) > 0.9]
        assert not wrong
        assert len({frame["number"] for frame in frames}) > 5
        assert not any(frame["room"] for frame in frames)


@pytest.mark.parametrize("result", ["mask", "data"])
@pytest.mark.parametrize("browser", BROWSERS)
async def test_nothing_of_the_room_is_shown_before_the_first_mask_and_after_the_last(
    browser: str, result: str, tmp_path: Path
) -> None:
    """The network hangs, works, and hangs again: what stands in the picture's lower right corner is never seen."""
    valve = Valve()
    async with fake_service(bars(valve)) as (url, _), tab(browser, url, tmp_path) as page:
        try:
            await page.evaluate(f"kit.connect({{result: '{result}', mode: 'color', color: '#000000'}})")
            before = await page.evaluate("kit.watch(4)")
            assert before
            assert not any(frame["room"] or frame["columns"] for frame in before)
            valve.opened.set()
            during = await page.evaluate("kit.watch(30)")
            assert any(frame["columns"] >= LEAST - 1 for frame in during)
            assert not any(frame["room"] for frame in during)
            valve.opened.clear()
            await page.evaluate("new Promise((resolve) => setTimeout(resolve, 2500))")
            after = await page.evaluate("kit.watch(3)")
            assert after
            assert not any(frame["room"] or frame["columns"] for frame in after)
        finally:
            valve.opened.set()


async def test_a_mode_shows_the_same_in_the_page_as_on_the_box(tmp_path: Path) -> None:
    shown = clip(640, 480, 1)
    # Smooth: made smaller, noise depends on the filter.
    picture, behind = shown.frames[0], np.asarray(cv2.GaussianBlur(room(800, 500), (0, 0), 3), np.uint8)
    values = np.asarray(cv2.resize(cv2.GaussianBlur(shown.masks[0], (0, 0), 8), (192, 192)), np.uint8)
    frame = frame_from_bgr(picture, Timestamp(0, Fraction(1)), 0.0)
    options = {"color": "#2040c0", "background": frame_from_bgr(behind, Timestamp(0, Fraction(1)), 0.0)}
    draw = f"""(async () => {{
      const {{ Compositor }} = await import("/web/portrait/compositor.js");
      const bitmap = async (text) =>
        createImageBitmap(new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))]));
      const compositor = new Compositor();
      compositor.color = [0x20 / 255, 0x40 / 255, 0xc0 / 255];
      compositor.background = await bitmap("{png(behind)}");
      const values = Uint8Array.from(atob("{base64.b64encode(values.tobytes()).decode()}"), (c) => c.charCodeAt(0));
      const slot = compositor.hold(await bitmap("{png(picture)}"), 640, 480);
      const found = {{}};
      for (const mode of {json.dumps(list(MODES))}) {{
        compositor.mode = mode;
        compositor.draw(slot, {{ values, width: 192, height: 192 }});
        found[mode] = compositor.canvas.toDataURL("image/png").split(",")[1];
      }}
      return found;
    }})()"""
    async with fake_service(bars()) as (url, _), tab("chromium", url, tmp_path) as page:
        found = await page.evaluate(draw)
    for mode in MODES:
        seen = cv2.imdecode(np.frombuffer(base64.b64decode(found[mode]), np.uint8), cv2.IMREAD_UNCHANGED)
        composed = open_compositor(Options(mode, **options)).compose(frame, Mask(values))
        expected = bgr_from_frame(composed)
        if composed.alpha is not None:
            assert np.abs(seen[..., 3].astype(int) - composed.alpha).mean() < 1
            whole = composed.alpha == 255
            seen, expected = seen[whole], expected[whole]
        difference = np.abs(seen[..., :3].astype(int) - expected)
        assert difference.mean() < 2.5, f"{mode}: {difference.mean()}"
        assert np.percentile(difference, 99) < 20, f"{mode}: {np.percentile(difference, 99)}"


def png(picture: Array) -> str:
    ok, data = cv2.imencode(".png", picture)
    assert ok
    return base64.b64encode(data.tobytes()).decode()


async def test_a_session_comes_back_after_the_box_was_started_anew(tmp_path: Path, settings: Settings) -> None:
    async with run_service(settings) as running:
        fixed = settings.model_copy(update={"http_port": running.http_port})
    async with AsyncExitStack() as stack:
        async with run_service(fixed) as first:
            url = f"http://127.0.0.1:{first.http_port}/"
            page = await stack.enter_async_context(tab("chromium", url, tmp_path))
            await page.evaluate("kit.connect({ result: 'data', mode: 'color' })")
            assert len(await page.evaluate("kit.watch(3)")) == 3
        await eventually(page, "kit.session.state === 'reconnecting'")
        async with run_service(fixed) as second:
            await eventually(page, "kit.session.state === 'live'")
            await until(lambda: any(each["frames_done"] > 3 for each in second.sessions.describe()))
            await page.evaluate("kit.session.close()")
            assert await second.sessions.drain(20) == 0
        events = await page.evaluate("kit.events")
        states = [detail["state"] for kind, detail in events if kind == "state"]
        assert states == ["reconnecting", "live", "closed"]


@pytest.mark.parametrize("result", ["composite", "data"])
async def test_another_network_means_a_restart_of_ice_or_a_new_session_at_once(result: str, tmp_path: Path) -> None:
    async with fake_service(bars()) as (url, sessions), tab("chromium", url, tmp_path) as page:
        await page.evaluate(f"kit.connect({{ result: '{result}', mode: 'color', color: '#000000' }})")
        await page.evaluate("kit.watch(3)")
        (before,) = [each["id"] for each in sessions.describe()]
        await page.evaluate(
            """(kit.asked = [], kit.fetch = fetch.bind(window), window.fetch = (url, request) =>
              (kit.asked.push([request.method, request.headers["If-Match"], request.body]), kit.fetch(url, request)),
              dispatchEvent(new Event("online")), true)"""
        )
        await until(lambda: [each["id"] for each in sessions.describe()] not in ([before], []))
        await eventually(page, "kit.session.state === 'live'")
        method, match, body = (await page.evaluate("kit.asked"))[0]
        assert (method, match) == ("PATCH", "*"), "an ICE restart is asked for first"
        assert "a=ice-ufrag:" in body
        await until(lambda: len(sessions) == 1)
        assert len(await page.evaluate("kit.watch(20)")) == 20


async def test_a_session_can_look_otherwise_and_says_what_cannot_be(tmp_path: Path) -> None:
    async with fake_service(bars()) as (url, _), tab("chromium", url, tmp_path) as page:
        for result in ("composite", "data"):
            await page.evaluate(f"kit.connect({{ result: '{result}' }})")
            await page.evaluate("kit.session.setMode('mask').then(() => kit.session.setColor('#102030'))")
            await page.evaluate("kit.session.setBackground('dusk').then(() => kit.session.setMode('image'))")
            own = "new Promise((resolve) => kit.paper.toBlob(resolve)).then((file) => kit.session.setBackground(file))"
            assert len(await page.evaluate("kit.watch(3)")) == 3
            await page.evaluate(own)
            assert len(await page.evaluate("kit.watch(3)")) == 3
            for call in ("setMode('sepia')", "setColor('red')", "setBackground('nowhere')"):
                said = await page.evaluate(f"kit.session.{call}.then(() => 'nothing', (error) => error.name)")
                assert said in ("TypeError", "PortraitError"), call
            await page.evaluate("kit.session.close()")


async def test_a_refusal_is_an_error_with_its_reason(tmp_path: Path) -> None:
    async with fake_service(bars()) as (url, sessions), tab("chromium", url, tmp_path) as page:
        said = "kit.connect({ model: 'nope' }).catch((error) => [error.name, error.reason, error.status])"
        assert await page.evaluate(said) == ["PortraitError", "BAD_OPTION", 400]
        await sessions.drain(0)
        said = "kit.connect({}).catch((error) => [error.name, error.reason, error.status, error.retryAfter])"
        assert await page.evaluate(said) == ["PortraitError", "DRAINING", 503, 5]


@pytest.mark.parametrize("browser", BROWSERS)
async def test_without_webgl_the_box_composes_and_the_page_is_told(browser: str, tmp_path: Path) -> None:
    async with fake_service(bars()) as (url, _), tab(browser, url, tmp_path, "no-webgl") as page:
        state = await page.evaluate("kit.connect({ result: 'data', mode: 'color', color: '#000000' })")
        assert (state["where"], state["result"]) == ("box", "composite")
        assert state["reason"] == "this browser has no WebGL 2"
        assert len(await page.evaluate("kit.watch(3)")) == 3


@pytest.mark.parametrize("browser", BROWSERS)
async def test_the_network_in_the_page_gives_the_boxs_mask_and_sends_nothing(
    browser: str, tmp_path: Path, service: Running
) -> None:
    """The same picture through the page's runtime and, over gRPC, the box's."""
    shown = clip(640, 480, 1)
    async with Client(f"127.0.0.1:{service.grpc_port}") as client:
        frames = [cv2.cvtColor(shown.frames[0], cv2.COLOR_BGR2RGB)] * 4
        by_box = [reply.array async for reply in client.stream(frames, mode="mask", every_frame=True)]
    segment = f"""(async () => {{
      const {{ LocalSegmenter }} = await import("/web/portrait/local.js");
      const {{ Box }} = await import("/web/portrait/signalling.js");
      const segmenter = await LocalSegmenter.open(new Box(""));
      const took = await segmenter.measure();
      const data = Uint8Array.from(atob("{png(shown.frames[0])}"), (c) => c.charCodeAt(0));
      const picture = await createImageBitmap(new Blob([data]));
      const masks = [];
      for (let i = 0; i < 4; i++) masks.push([...(await segmenter.segment(picture, 640, 480)).values]);
      segmenter.close();
      return {{ took, masks }};
    }})()"""
    async with tab(browser, f"http://127.0.0.1:{service.http_port}/", tmp_path) as page:
        found = await page.evaluate(segment)
        assert found["took"] > 0
        for box, values in zip(by_box, found["masks"], strict=True):
            assert iou(box, np.array(values, np.uint8).reshape(box.shape)) > 0.985
        state = await page.evaluate("kit.connect({ where: 'browser', mode: 'color', color: '#000000' })")
        assert (state["where"], len(service.sessions)) == ("browser", 0)
        assert "ms in this browser" in state["reason"]
        assert len(await page.evaluate("kit.watch(5)")) == 5
        stats = await page.evaluate("kit.session.stats()")
        assert (stats["where"], stats["width"], stats["height"]) == ("browser", 640, 360)
        assert stats["roundTrip"] == 0
        assert stats["framesPerSecond"] > 0


@pytest.mark.parametrize(("slower", "where"), [(1, {"browser", "box"}), (25, {"box"})])
async def test_auto_measures_and_says_what_it_found(
    slower: int, where: set[str], tmp_path: Path, service: Running
) -> None:
    async with open_page(f"http://127.0.0.1:{service.http_port}/", tmp_path, None) as page:
        await page.evaluate(f"(() => {{ {KIT} }})()")
        devtools = await page.context.new_cdp_session(page)
        await devtools.send("Emulation.setCPUThrottlingRate", {"rate": slower})
        state = await page.evaluate("kit.connect({ where: 'auto' })")
        assert state["where"] in where
        found = re.fullmatch(r"an inference takes ([\d.]+) ms in this browser", state["reason"])
        assert found
        assert (state["where"] == "browser") == (float(found[1]) <= 11)


async def test_the_servers_of_a_link_header_are_understood(tmp_path: Path) -> None:
    """Those of RFC 9725 section 4.6, and whatever else a header may hold."""
    links = (
        '<stun:stun.example.net>; rel="ice-server", <turn:turn.example.net?transport=udp>; rel="ice-server"; '
        'username="us,er"; credential="pass;word"; credential-type="password", </next>; rel="next", '
        "<turns:[2001:db8::1]:443?transport=tcp>;rel=ice-server;username=a;credential=b, <turn:no>; rel=other"
    )
    read = f"""(async () => {{
      const {{ readIceServers }} = await import("/web/portrait/signalling.js");
      return readIceServers(new Response("", {{ headers: {{ Link: {json.dumps(links)} }} }}));
    }})()"""
    async with fake_service(bars()) as (url, _), tab("chromium", url, tmp_path) as page:
        assert await page.evaluate(read) == [
            {"urls": "stun:stun.example.net"},
            {"urls": "turn:turn.example.net?transport=udp", "username": "us,er", "credential": "pass;word"},
            {"urls": "turns:[2001:db8::1]:443?transport=tcp", "username": "a", "credential": "b"},
        ]


@pytest.mark.skipif(not TSC.exists(), reason="TypeScript is missing: run make tests/node/node_modules/ready")
def test_the_module_is_typed() -> None:
    done = subprocess.run([TSC, "-p", TESTS / "node" / "tsconfig.json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_module_outgrows_its_room() -> None:
    files = [*MODULES.glob("*.js"), *(MODULES / "portrait").glob("*.js")]
    assert len(files) > 8
    assert not {file.name: n for file in files if (n := len(file.read_text().splitlines())) > 300}


async def eventually(page: Tab, condition: str, seconds: float = 30) -> None:
    """Wait until an expression in the page is true."""
    async with asyncio.timeout(seconds):
        while not await page.evaluate(condition):
            await asyncio.sleep(0.05)
