"""A session of /portrait.js in a real browser: it comes back, looks otherwise, is refused, and does without WebGL."""

import json
from asyncio import timeout
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

import pytest
from playwright.async_api import ConsoleMessage, Page

from portrait.server.app import run_service
from portrait.settings import Settings
from tests.browser import browsers
from tests.rtc import fake_service
from tests.tabs import BROWSERS, bars, eventually, tab, until

__all__ = ["browsers"]  # a fixture

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("browsers", "no_sockets_left")]


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
        await eventually(page, "kit.events.some(([kind]) => kind === 'retry')")
        async with run_service(fixed) as second:
            await eventually(page, "kit.session.state === 'live'")
            await until(lambda: any(each["frames_done"] > 3 for each in second.sessions.describe()))
            await page.evaluate("kit.session.close()")
            assert await second.sessions.drain(60) == 0
        events = await page.evaluate("kit.events")
        states = [detail["state"] for kind, detail in events if kind == "state"]
        assert states == ["reconnecting", "live", "closed"]
        pauses = await page.evaluate(
            "kit.events.filter(([kind]) => kind === 'retry').map(([, each]) => [each.seconds, each.error.retryAfter])"
        )
        # A box that is still going says itself when to ask again.
        shortest = max(0.3, pauses[0][1] or 0)
        assert shortest <= pauses[0][0] <= 1.25 * shortest
        assert max(pause for pause, _ in pauses) <= 12.5


@pytest.mark.parametrize("result", ["composite", "data"])
async def test_another_network_means_a_new_session_at_once(result: str, tmp_path: Path) -> None:
    async with fake_service(bars()) as (url, sessions), tab("chromium", url, tmp_path) as page:
        await page.evaluate(f"kit.connect({{ result: '{result}', mode: 'color', color: '#000000' }})")
        await page.evaluate("kit.watch(3)")
        (before,) = [each["id"] for each in sessions.describe()]
        await page.evaluate("(dispatchEvent(new Event('online')), true)")
        await until(lambda: [each["id"] for each in sessions.describe()] not in ([before], []))
        await eventually(page, "kit.session.state === 'live'")
        await until(lambda: len(sessions) == 1)
        assert len(await page.evaluate("kit.watch(20)")) == 20


@pytest.mark.parametrize("result", ["composite", "mask", "data"])
async def test_a_camera_that_the_page_stops_ends_the_session(result: str, tmp_path: Path) -> None:
    """No event tells of it: the module opened a session after the other, with nothing to send."""
    async with fake_service(bars()) as (url, sessions), tab("chromium", url, tmp_path) as page:
        await page.evaluate(f"kit.connect({{ result: '{result}', mode: '{'mask' if result == 'mask' else 'color'}' }})")
        await page.evaluate("kit.watch(3)")
        await page.evaluate("(kit.stream.getTracks().forEach((track) => track.stop()), true)")
        await eventually(page, "kit.session.state === 'closed'")
        assert ["closed", "the camera's track ended"] in await page.evaluate("kit.events")
        await until(lambda: len(sessions) == 0)
        again = "import('/portrait.js').then(({ connect }) => connect(kit.stream)).catch((error) => error.message)"
        said = await page.evaluate(again)
        assert said == "got a video track that has ended, expected a live one"


async def test_a_page_is_told_when_its_frames_are_refused_and_when_no_longer(tmp_path: Path) -> None:
    async with fake_service(bars(), max_frame_pixels=1000) as (url, _), tab("chromium", url, tmp_path) as page:
        await page.evaluate("kit.connect({ mode: 'color' })")
        await eventually(page, "kit.events.some(([kind]) => kind === 'refused')")
        stats = await page.evaluate("kit.session.stats()")
        assert stats["refused"] > 0
        assert "expected" in stats["refusal"]
        await page.evaluate("(Object.assign(kit.stream.canvas, { width: 32, height: 24 }), true)")
        await eventually(page, "kit.events.some(([kind, detail]) => kind === 'refused' && detail === null)")
        assert (await page.evaluate("kit.session.stats()"))["refusal"] == stats["refusal"]


async def test_another_estimate_of_the_networks_speed_leaves_a_session_alone(tmp_path: Path) -> None:
    """Browsers tell a page of it by the event they use for another network as well."""
    async with fake_service(bars()) as (url, sessions), tab("chromium", url, tmp_path) as page:
        await page.evaluate("kit.connect({ mode: 'color', color: '#000000' })")
        await page.evaluate("kit.watch(3)")
        (before,) = [each["id"] for each in sessions.describe()]
        await page.evaluate(
            """(kit.asked = [], kit.fetch = fetch.bind(window), window.fetch = (url, request) =>
              (kit.asked.push(request?.method ?? "GET"), kit.fetch(url, request)),
              Object.defineProperty(navigator.connection, "type", { value: "wifi", configurable: true }),
              navigator.connection.dispatchEvent(new Event("change")), true)"""
        )
        await until(lambda: [each["id"] for each in sessions.describe()] not in ([before], []))
        await eventually(page, "kit.session.state === 'live'")
        (before,) = [each["id"] for each in sessions.describe()]
        await page.evaluate("(kit.asked = [], navigator.connection.dispatchEvent(new Event('change')), true)")
        await page.evaluate("kit.watch(10)")
        assert "POST" not in await page.evaluate("kit.asked")
        assert [each["id"] for each in sessions.describe()] == [before]


HOLD_OFFERS = """(kit.fetch = fetch.bind(window), kit.held = 0, window.fetch = async (url, request) => {
  if (request?.method === "POST") await new Promise((resolve) => (kit.held++, (kit.release = resolve)));
  return kit.fetch(url, request);
}, true)"""


async def test_what_is_changed_while_a_session_comes_back_holds(tmp_path: Path) -> None:
    """The offer is on its way with the earlier look."""
    async with fake_service(bars()) as (url, sessions), tab("chromium", url, tmp_path) as page:
        await page.evaluate("kit.connect({ mode: 'color', color: '#102030' })")
        await page.evaluate("kit.watch(3)")
        await page.evaluate(HOLD_OFFERS)
        for each in sessions.describe():
            sessions[each["id"]].end("injected")
        await eventually(page, "kit.held === 1")
        await page.evaluate("Promise.all([kit.session.setMode('mask'), kit.session.wear({ threshold: 0.6 })])")
        await page.evaluate("(kit.release(), true)")
        await eventually(page, "kit.session.state === 'live'")
        (now,) = sessions.describe()
        assert (now["mode"], now["threshold"]) == ("mask", 0.6)


@pytest.mark.parametrize("result", ["composite", "data"])
async def test_of_changes_in_one_moment_the_last_holds(result: str, tmp_path: Path) -> None:
    """Though the picture of the first is long on its way; and once it is there it is not asked for again."""
    async with fake_service(bars()) as (url, sessions), tab("chromium", url, tmp_path) as page:
        await page.evaluate(f"kit.connect({{ result: '{result}', mode: 'color', color: '#000000' }})")
        await page.evaluate("kit.watch(3)")
        await page.evaluate(
            """(kit.pictures = 0, kit.fetch = fetch.bind(window), window.fetch = async (url, request) => {
              const picture = String(url).includes("/v1/backgrounds/");
              if (picture) kit.pictures++;
              if (picture || request?.body?.includes("dusk")) await new Promise((resolve) => setTimeout(resolve, 500));
              return kit.fetch(url, request);
            }, true)"""
        )
        await page.evaluate(
            """Promise.all([
              kit.session.wear({ mode: "image", background: "dusk" }),
              kit.session.wear({ mode: "color", color: "#ff00ff" }),
            ])"""
        )
        await eventually(page, "kit.watch(1).then(([frame]) => frame?.room > 10000)")
        if result == "composite":
            (now,) = sessions.describe()
            assert (now["mode"], now["color"]) == ("color", "#ff00ff")
        else:
            await page.evaluate("kit.session.setMode('image')")
            for threshold in (0.4, 0.45, 0.55):
                await page.evaluate(f"kit.session.wear({{ threshold: {threshold} }})")
            assert await page.evaluate("kit.pictures") == 1


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


async def test_a_session_tells_what_the_box_refused_when_that_ended_it(tmp_path: Path) -> None:
    async with fake_service(bars()) as (url, sessions), tab("chromium", url, tmp_path) as page:
        await page.evaluate("kit.connect({ result: 'data' })")
        assert await page.evaluate("kit.session.error") is None
        refusal = {"title": "BAD_OPTION", "status": 400, "detail": "injected"}
        await page.evaluate(
            f"""(kit.fetch = fetch.bind(window), window.fetch = async (url, request) => request?.method === "POST"
              ? Response.json({json.dumps(refusal)}, {{ status: 400 }}) : kit.fetch(url, request), true)"""
        )
        for each in sessions.describe():
            sessions[each["id"]].end("injected")
        await eventually(page, "kit.session.state === 'closed'")
        found = await page.evaluate("[kit.session.error.name, kit.session.error.reason]")
        assert found == ["PortraitError", "BAD_OPTION"]
        assert ["closed", "injected"] in await page.evaluate("kit.events")


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


READING = """(async () => {
  const log = [], waiting = [];
  let asked = () => {};
  globalThis.MediaStreamTrackProcessor = class {
    readable = { getReader: () => ({
      read: () => new Promise((resolve) => { waiting.push(resolve); asked(); }),
      cancel: async () => void log.push(`cancelled while ${waiting.length} wait`),
    }) };
  };
  const { readFrames } = await import("/web/portrait/frames.js?reading");
  const next = async (name) => {
    if (!waiting.length) await new Promise((resolve) => { asked = resolve; });
    const frame = { displayWidth: 1, displayHeight: 1, close: () => log.push(`${name} closed`) };
    waiting.shift()({ done: false, value: frame });
    await new Promise((resolve) => setTimeout(resolve));
  };
  const stop = readFrames({}, () => log.push("taken"));
  await next("first");
  stop();
  await new Promise((resolve) => setTimeout(resolve, 500));
  await next("second");
  return log;
})()"""

WRITING = """(async () => {
  const seen = [];
  globalThis.MediaStreamTrackGenerator = class {
    readyState = "live";
    stop() { this.readyState = "ended"; }
    writable = { getWriter: () => ({ write: (frame) => { seen.push(frame); return new Promise(() => {}); } }) };
  };
  const { FrameWriter } = await import("/web/portrait/frames.js?writing");
  const canvas = document.createElement("canvas");
  canvas.getContext("2d").fillRect(0, 0, 9, 9);
  const writer = new FrameWriter(canvas);
  writer.write();
  writer.write();
  writer.close();
  writer.write();
  return seen.map((frame) => frame.format);
})()"""


async def test_no_frame_is_left_to_the_garbage_collector_when_reading_and_writing_end(tmp_path: Path) -> None:
    """However late the last one comes: a camera has few buffers, and Chromium complains of each that is not closed."""
    async with fake_service(bars()) as (url, _), tab("chromium", url, tmp_path) as page:
        assert await page.evaluate(READING) == ["taken", "first closed", "second closed", "cancelled while 0 wait"]
        assert await page.evaluate(WRITING) == [None, None]  # as closed frames have


CYCLES = """async ([sessions, options]) => {
  const { processTrack, sessionOf } = await import("/web/portrait/track.js");
  kit.endless ??= kit.camera(320, 180);
  for (let i = 0; i < sessions; i++) {
    const track = await processTrack(kit.endless.getVideoTracks()[0], options);
    const frames = new MediaStreamTrackProcessor({ track }).readable.getReader();
    for (let seen = 0; seen < 3; seen++) (await frames.read()).value.close();
    frames.cancel();
    const busy = performance.now() + 60;
    while (performance.now() < busy); // so that a frame is under way
    sessionOf(track).close();
  }
}"""

LEAK = """() => {
  const other = document.body.appendChild(document.createElement("iframe"));
  new other.contentWindow.VideoFrame(kit.endless.canvas, { timestamp: 0 });
}"""


async def test_sessions_that_end_cause_no_warning_in_the_browser(tmp_path: Path) -> None:
    """Chromium warns of frames that nobody closes, and logs requests that fail."""
    said: list[tuple[str, str]] = []

    def hear(message: ConsoleMessage) -> None:
        where = message.location["url"]
        # The page asks for cameras, which this service has not.
        if message.type in ("warning", "error") and "GPU stall" not in message.text and "/v1/cameras" not in where:
            said.append((where, message.text))

    async with fake_service(bars()) as (url, _), tab("chromium", url, tmp_path) as one:
        page = cast("Page", one)
        page.on("console", hear)
        collector = await page.context.new_cdp_session(page)
        for options in ({"result": "data"}, {"result": "mask"}, {"result": "composite"}):
            await page.evaluate(CYCLES, [5, {"mode": "color", **options}])
        await page.evaluate("new Promise((resolve) => setTimeout(resolve, 1000))")  # the last connection is closed
        await collector.send("HeapProfiler.collectGarbage")
        # Chromium looks for such frames every ten seconds, document by document. Once it has warned of this one, it
        # has looked at the page as well.
        await page.evaluate(LEAK)
        async with timeout(60):
            while not any(where == "about:blank" for where, _ in said):
                await collector.send("HeapProfiler.collectGarbage")
                await page.wait_for_timeout(500)
        assert [(where, text) for where, text in said if where != "about:blank"] == []
