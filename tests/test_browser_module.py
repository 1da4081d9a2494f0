"""/portrait.js in real browsers: three ways to get the result, pairing, failing closed, coming back."""

import asyncio
import base64
import json
import re
import subprocess
from asyncio import timeout
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from portrait.client import Client
from portrait.core.compositors import MODES, Options, open_compositor
from portrait.image.convert import bgr_from_frame, frame_from_bgr
from portrait.image.frame import Mask, Timestamp
from portrait.server.app import RunningService
from tests.browser import open_page
from tests.firefox import needs_firefox
from tests.pages import browsers, nothing_left, service
from tests.people import clip, iou, room
from tests.rtc import fake_service
from tests.tabs import BROWSERS, KIT, LEAST, TESTS, Valve, bars, png, tab
from tests.test_backgrounds import write as write_film

__all__ = ["browsers", "nothing_left", "service"]  # fixtures

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("nothing_left")]
MODULES = TESTS.parent / "service" / "portrait" / "web"
TSC = TESTS / "node" / "node_modules" / ".bin" / "tsc"


COMPOSED_BY_THE_PAGE = [
    ("chromium", "mask"),
    ("chromium", "data"),
    pytest.param("firefox", "data", marks=needs_firefox),
]
RESULTS = [("chromium", "composite"), pytest.param("firefox", "composite", marks=needs_firefox), *COMPOSED_BY_THE_PAGE]


@pytest.mark.parametrize(("browser", "result"), RESULTS)
async def test_every_frame_is_shown_with_its_own_mask_at_the_cameras_size(
    browser: str, result: str, tmp_path: Path
) -> None:
    """The number in the picture and the mask that was made of it are the same, whatever came between."""
    async with fake_service(bars()) as (url, _), tab(browser, url, tmp_path) as page:
        options = {"result": result, "mode": "color", "color": "#000000"}
        state = await page.evaluate(f"kit.connect({json.dumps(options)})")
        assert state == {"where": "box", "result": result, "reason": "", "state": "live"}
        frames = list[dict[str, Any]]()
        async with timeout(120):
            while len(frames) < 40:  # nothing of the person is shown as long as a busy machine gives no mask
                frames += [frame for frame in await page.evaluate("kit.watch(10)") if frame["columns"]]
        if result != "composite":  # there, the browser may send a smaller picture
            assert {tuple(frame["size"]) for frame in frames} == {(640, 360)}
        wrong = [frame for frame in frames if abs(frame["columns"] - LEAST - frame["number"]) > 0.9]
        assert not wrong
        assert len({frame["number"] for frame in frames}) > 5
        assert not any(frame["room"] for frame in frames)


@needs_firefox
async def test_a_browser_that_draws_other_frames_than_it_tells_of_gets_masks_as_data(tmp_path: Path) -> None:
    async with fake_service(bars()) as (url, _), tab("firefox", url, tmp_path) as page:
        state = await page.evaluate("kit.connect({result: 'mask', mode: 'color', color: '#000000'})")
        reason = "this browser does not tell which frame of a video it draws"
        assert state == {"where": "box", "result": "data", "reason": reason, "state": "live"}
        assert await page.evaluate("kit.watch(3)")


@pytest.mark.parametrize(("browser", "result"), COMPOSED_BY_THE_PAGE)
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
            async with timeout(60):
                after = during  # masks may still be on their way
                while any(frame["columns"] for frame in after):
                    after = await page.evaluate("kit.watch(3)")
                    assert after
                    assert not any(frame["room"] for frame in after)
        finally:
            valve.opened.set()


@pytest.mark.parametrize("decontaminate", [False, True])
async def test_a_mode_shows_the_same_in_the_page_as_on_the_box(tmp_path: Path, decontaminate: bool) -> None:
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
      compositor.edge = {{ threshold: 0.5, feather: 0.25, decontaminate: {json.dumps(decontaminate)} }};
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
        composed = open_compositor(Options(mode, decontaminate=decontaminate, **options)).compose(frame, Mask(values))
        expected = bgr_from_frame(composed)
        if composed.alpha is not None:
            assert np.abs(seen[..., 3].astype(int) - composed.alpha).mean() < 1
            whole = composed.alpha == 255
            seen, expected = seen[whole], expected[whole]
        difference = np.abs(seen[..., :3].astype(int) - expected)
        assert difference.mean() < 2.5, f"{mode}: {difference.mean()}"
        assert np.percentile(difference, 99) < 20, f"{mode}: {np.percentile(difference, 99)}"


async def test_a_film_plays_behind_the_person_in_the_page_and_edges_change(tmp_path: Path) -> None:
    write_film(tmp_path / "rain.webm")
    film = base64.b64encode((tmp_path / "rain.webm").read_bytes()).decode()
    draw = f"""(async () => {{
      const {{ Compositor }} = await import("/web/portrait/compositor.js");
      const {{ dress, lookOf }} = await import("/web/portrait/look.js");
      const bytes = Uint8Array.from(atob("{film}"), (c) => c.charCodeAt(0));
      const compositor = new Compositor();
      const look = lookOf({{ mode: "image", background: new Blob([bytes], {{ type: "video/webm" }}) }});
      const refused = await dress(compositor, {{ ...look, framing: true }}, null).catch((error) => error.message);
      await dress(compositor, look, null);
      const camera = await createImageBitmap(new ImageData(64, 64));
      const seen = [];
      const reads = document.createElement("canvas").getContext("2d", {{ willReadFrequently: true }});
      for (const end = performance.now() + 20000; new Set(seen).size < 3 && performance.now() < end;) {{
        compositor.draw(compositor.hold(camera, 64, 64));
        reads.drawImage(compositor.canvas, 0, 0);
        const pixel = [...reads.getImageData(30, 30, 1, 1).data].slice(0, 3);
        if (Math.max(...pixel) > 150) seen.push(pixel.indexOf(Math.max(...pixel)));
        await new Promise((resolve) => setTimeout(resolve, 50));
      }}
      await dress(compositor, {{ ...look, mode: "alpha", threshold: 0.8, feather: 0.1 }}, null);
      const half = {{ values: new Uint8Array(4).fill(160), width: 2, height: 2 }};
      compositor.draw(compositor.hold(camera, 64, 64), half);
      reads.drawImage(compositor.canvas, 0, 0);
      return {{ colors: [...new Set(seen)].sort(), refused, share: reads.getImageData(30, 30, 1, 1).data[0] }};
    }})()"""
    async with fake_service(bars()) as (url, _), tab("chromium", url, tmp_path) as page:
        found = await page.evaluate(draw)
    assert found["colors"] == [0, 1, 2]
    assert "got framing where the page composes" in found["refused"]
    assert found["share"] == 0


@pytest.mark.parametrize("browser", BROWSERS)
async def test_the_network_in_the_page_gives_the_boxs_mask_and_sends_nothing(
    browser: str, tmp_path: Path, service: RunningService
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
        assert stats["presence"]["present"] is False
        refused = await page.evaluate(
            "kit.connect({ result: 'data', mode: 'pixelate' }).catch(({ message }) => message)"
        )
        assert "got mode pixelate where the page composes with masks of the box's" in refused


SLOW = """(() => {
  const quick = CanvasRenderingContext2D.prototype.getImageData;
  CanvasRenderingContext2D.prototype.getImageData = function (...area) {
    for (const end = performance.now() + 30; performance.now() < end; );
    return quick.apply(this, area);
  };
})()"""
"""A page whose pictures come as late as on a weak phone. The browser's own throttle is a thread, which a busy machine
throttles as well."""


@pytest.mark.parametrize(("slow", "where"), [(False, {"browser", "box"}), (True, {"box"})])
async def test_auto_measures_and_says_what_it_found(
    slow: bool, where: set[str], tmp_path: Path, service: RunningService
) -> None:
    async with open_page(f"http://127.0.0.1:{service.http_port}/", tmp_path, None) as page:
        await page.evaluate(f"(() => {{ {KIT} }})()")
        if slow:
            await page.evaluate(SLOW)
        state = await page.evaluate("kit.connect({ where: 'auto' })")
        assert state["where"] in where
        found = re.fullmatch(r"an inference takes ([\d.]+) ms in this browser", state["reason"])
        assert found
        assert (state["where"] == "browser") == (float(found[1]) <= 11)


@pytest.mark.skipif(not TSC.exists(), reason="TypeScript is missing: run make tests/node/node_modules/ready")
async def test_the_module_is_typed() -> None:
    checking = [TSC, "-p", TESTS / "node" / "tsconfig.json"]
    done = await asyncio.to_thread(subprocess.run, checking, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
