"""Firefox through WebDriver BiDi, which it speaks itself: playwright drives only a Firefox of its own.

Its headless mode has no WebGL; on a virtual display it has (Xvfb, drawn in software).
"""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
XVFB = shutil.which("Xvfb")

needs_firefox = pytest.mark.skipif(
    FIREFOX is None or XVFB is None, reason="firefox-esr or xvfb is missing: run make system-packages"
)

PREFERENCES = {
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "media.autoplay.default": 0,
    "media.navigator.permission.disabled": True,
    "media.navigator.streams.fake": True,
    "network.captive-portal-service.enabled": False,
    "remote.active-protocols": 1,
    "webgl.force-enabled": True,
}


class Firefox:
    """A window, driven over a WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._ids, self._window = socket, itertools.count(1), ""

    async def open(self, url: str) -> None:
        await self._call("session.new", {"capabilities": {}})
        tree = await self._call("browsingContext.getTree", {})
        self._window = tree["contexts"][0]["context"]
        await self.goto(url)

    async def goto(self, url: str) -> None:
        await self._call("browsingContext.navigate", {"context": self._window, "url": url, "wait": "complete"})

    async def evaluate(self, expression: str) -> Any:
        """What an expression or its promise gives, as JSON would carry it; what it throws as RuntimeError."""
        wrapped = f"(async () => JSON.stringify(await ({expression})))()"
        found = await self._call(
            "script.evaluate",
            {"expression": wrapped, "target": {"context": self._window}, "awaitPromise": True},
        )
        if found["type"] == "exception":
            raise RuntimeError(found["exceptionDetails"]["text"])
        return json.loads(found["result"].get("value", "null"))

    async def close(self) -> None:
        await self._call("browser.close", {})

    async def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message: dict[str, Any] = await self._socket.receive_json(timeout=180)
            if message.get("id") != number:
                continue  # an event
            if message["type"] == "error":
                raise RuntimeError(f"{method}: {message['message']}")
            result: dict[str, Any] = message["result"]
            return result


@asynccontextmanager
async def open_firefox(url: str, profile: Path, webgl: bool = True) -> AsyncIterator[Firefox]:
    """The page at `url`; its camera is Firefox's own test picture. Without `webgl` in headless mode."""
    assert FIREFOX is not None
    _prepare(profile)
    async with display() if webgl else contextlib.nullcontext("") as screen:
        mode = [] if webgl else ["--headless"]
        browser = await asyncio.create_subprocess_exec(
            FIREFOX, *mode, "--no-remote", "--profile", profile, "--remote-debugging-port", "0",
            env={**os.environ, "DISPLAY": screen, "MOZ_CRASHREPORTER_DISABLE": "1"},
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            address = await asyncio.wait_for(_address(browser), 180)
            async with (
                aiohttp.ClientSession() as http,
                http.ws_connect(f"{address}/session", max_msg_size=0) as socket,
            ):
                firefox = Firefox(socket)
                await firefox.open(url)
                yield firefox
                await firefox.close()
            await asyncio.wait_for(browser.wait(), 60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                browser.kill()
            await browser.wait()


def _prepare(profile: Path) -> None:
    profile.mkdir(parents=True, exist_ok=True)
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items()]
    (profile / "user.js").write_text("".join(lines))


@asynccontextmanager
async def display() -> AsyncIterator[str]:
    """The name of a display nobody sees."""
    assert XVFB is not None
    read, write = os.pipe()
    server = await asyncio.create_subprocess_exec(
        XVFB, "-displayfd", str(write), "-screen", "0", "1280x900x24", "-nolisten", "tcp",
        pass_fds=[write], stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    try:
        with os.fdopen(read) as pipe:
            number = await asyncio.wait_for(asyncio.to_thread(pipe.readline), 60)
        yield f":{number.strip()}"
    finally:
        server.terminate()
        await server.wait()


async def _address(browser: asyncio.subprocess.Process) -> str:
    """The address Firefox says it listens at; what it says later is read as well, or it would stop."""
    assert browser.stderr is not None
    said: list[str] = []
    async for line in browser.stderr:
        said.append(line.decode())
        if "WebDriver BiDi listening on" in said[-1]:
            asyncio.get_running_loop().create_task(_drain(browser.stderr), name="firefox-stderr")
            return said[-1].split()[-1]
    raise RuntimeError(f"Firefox did not come up: {''.join(said[-5:])}")


async def _drain(stream: asyncio.StreamReader) -> None:
    async for _ in stream:
        pass
