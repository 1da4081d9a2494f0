"""Several workers as one box: real processes, killed and stopped."""

import asyncio
import os
import re
import signal
import time
import urllib.request
from asyncio import timeout
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from portrait.client import Client, Reply
from tests.boxes import ended, serving, wait_for, workers
from tests.browser import open_page, write_camera
from tests.people import Array, Clip, clip, room
from tests.timing import at_most
from tests.two_workers import BACK_SECONDS, Process, box, get, scrape, worker_of
from tests.whip import publisher, shown

__all__ = ["box", "shown"]  # fixtures


def test_the_supervisor_loads_none_of_the_workers_libraries(box: tuple[Process, dict[str, Any]]) -> None:
    own = Path(f"/proc/{box[0].pid}/maps").read_text()
    theirs = Path(f"/proc/{workers(box[0].pid)[0]}/maps").read_text()
    for library in ("cv2", "numpy", "ai_edge_litert", "grpc", "/av/"):
        assert library in theirs
        assert library not in own


def test_a_scrape_holds_every_worker_and_each_family_once(box: tuple[Process, dict[str, Any]]) -> None:
    for accept in ("text/plain", "application/openmetrics-text; version=1.0.0"):
        request = urllib.request.Request(box[1]["page"] + "metrics", headers={"Accept": accept})
        with urllib.request.urlopen(request) as response:
            text = response.read().decode()
        helps = re.findall(r"^# HELP (\S+)", text, re.MULTILINE)
        assert len(helps) == len(set(helps))
        assert set(re.findall(r'^portrait_sessions\{.*worker="(\d)"', text, re.MULTILINE)) == {"0", "1"}
        assert text.count("# EOF") == ("openmetrics" in accept)


async def steady(rate: float, done: asyncio.Event) -> AsyncIterator[Array]:
    """Frames as a camera gives them."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while not done.is_set():
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - loop.time()))
        yield room(96, 64)


async def until(condition: Callable[[], bool]) -> None:
    async with timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


def sessions(page: str) -> list[str]:
    """Their names; the part before the dash is the worker's index."""
    return [row["id"] for row in get(page + "v1/sessions")]


@pytest.mark.timing
async def test_killing_a_worker_costs_its_own_streams_a_moment_and_nobody_else_anything() -> None:
    with serving("--workers", "2") as (process, told):
        page = told["page"]

        def held_by(index: int) -> int:
            return sum(name.startswith(f"{index}-") for name in sessions(page))

        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(Client(told["grpc"]))
            neighbour = await stack.enter_async_context(client.open_stream())
            index = 1 - int(neighbour.info.session_id.partition("-")[0])
            streams: list[list[tuple[float, Reply]]] = []
            done = asyncio.Event()

            async def watch(moments: list[tuple[float, Reply]]) -> None:
                async for reply in client.stream(steady(30, done)):
                    moments.append((time.monotonic(), reply))  # noqa: PERF401

            watching = []
            while await asyncio.to_thread(held_by, index) < 2:  # the kernel places connections
                streams.append([])
                watching.append(asyncio.create_task(watch(streams[-1])))
                await until(lambda: len(streams[-1]) > 20)
            os.kill(workers(process.pid)[index], signal.SIGKILL)
            # Those of the other worker go on, and new ones are taken at once.
            for _ in range(10):
                await neighbour.send(room(96, 64), 1)
                assert await neighbour.receive() is not None
            async with client.open_stream() as fresh:
                await fresh.send(room(96, 64), 1)
                assert await fresh.receive() is not None
            seen = [len(moments) for moments in streams]
            await until(lambda: all(len(moments) > was + 30 for moments, was in zip(streams, seen, strict=True)))
            done.set()
            await asyncio.gather(*watching)
        for moments in streams:
            gap = max(later[0] - earlier[0] for earlier, later in pairwise(moments))
            at_most("longest gap of a lost worker's stream, seconds", gap, BACK_SECONDS)
            assert all(reply.error is None for _, reply in moments)
        # It is started again, counts from 0, and says so.
        await asyncio.to_thread(wait_for, lambda: get(page + "readyz")["workers"] == [True, True])
        scraped = await asyncio.to_thread(scrape, page)
        assert f'portrait_worker_restarts_total{{worker="{index}"}} 1.0' in scraped
        assert f'portrait_worker_restarts_total{{worker="{1 - index}"}} 0.0' in scraped
        process.send_signal(signal.SIGTERM)
        status, log = await asyncio.to_thread(ended, process)
    assert status == 0, log
    assert f"worker {index}: killed by SIGKILL" in log
    assert log.count("drained sessions_cut=0") == 2
    assert "Traceback" not in log


@pytest.mark.timing
async def test_a_killed_publishers_name_is_free_again_and_its_sessions_are_unknown(shown: Clip) -> None:
    with serving("--workers", "2") as (process, told):
        url = told["page"].rstrip("/")
        async with publisher(url, shown) as one, publisher(url, shown) as two:
            await one.connect("/whip/desk")
            index = worker_of(one.location)
            os.kill(workers(process.pid)[index], signal.SIGKILL)
            killed_at = time.monotonic()
            async with timeout(60):
                offer = await two.offer()
                while (response := await two.post(offer, "/whip/desk")).status != 201:
                    assert response.status in (409, 503), await response.text()
                    await asyncio.sleep(0.05)
            at_most("a lost publisher's name is free after, seconds", time.monotonic() - killed_at, BACK_SECONDS)
            async with two.http.get(one.location) as gone:
                assert gone.status == 404


def test_a_box_that_is_stopped_while_a_worker_comes_up_has_not_failed() -> None:
    with serving("--workers", "2") as (process, _):
        old = workers(process.pid)
        os.kill(old[1], signal.SIGKILL)
        wait_for(lambda: set(workers(process.pid)) - {*old})
        process.send_signal(signal.SIGTERM)
        status, log = ended(process)
    assert status == 0, log
    assert "Traceback" not in log


def alive(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_workers_stop_when_their_supervisor_is_killed() -> None:
    with serving("--workers", "2") as (process, _):
        orphans = workers(process.pid)
        process.kill()
        for orphan in orphans:
            wait_for(lambda orphan=orphan: not alive(orphan))


FRAMES = """() => {
  const video = document.getElementById("result");
  window.painted = [];
  const note = (now) => { window.painted.push(performance.timeOrigin + now); video.requestVideoFrameCallback(note); };
  video.requestVideoFrameCallback(note);
}"""
"""Keeps when each picture of the result was painted, in milliseconds of the epoch."""


async def until_replaced(lost: str, page: str) -> None:
    """Wait until there is a session again, and it is another one."""

    def there() -> list[str]:
        with suppress(OSError):  # a connection that the lost worker had taken
            return sessions(page)
        return []

    async with timeout(60):
        while await asyncio.to_thread(there) in ([], [lost]):
            await asyncio.sleep(0.05)


async def shows(page: Page, expression: str) -> None:
    async with timeout(60):  # asked from outside: the page's policy lets nobody evaluate anything inside
        while not await page.evaluate(expression):
            await asyncio.sleep(0.05)


@pytest.mark.timing
async def test_a_page_whose_worker_is_killed_shows_the_next_picture_within_two_seconds(
    shown: Clip, tmp_path: Path
) -> None:
    write_camera(tmp_path / "camera.y4m", clip(640, 480, 30))
    with serving("--workers", "2") as (process, told):
        async with open_page(told["page"], tmp_path / "profile", tmp_path / "camera.y4m") as page:
            await page.select_option("#way", "composite")
            await page.click("#toggle")
            await page.evaluate(FRAMES)
            await shows(page, "window.painted.length > 60")
            (lost,) = await asyncio.to_thread(sessions, told["page"])
            killed_at = 1000 * time.time()
            os.kill(workers(process.pid)[int(lost.partition("-")[0])], signal.SIGKILL)
            await until_replaced(lost, told["page"])
            await page.evaluate("window.seen = window.painted.length")
            await shows(page, "window.painted.length > window.seen + 30")
            painted = await page.evaluate("window.painted")
        gaps = [later - earlier for earlier, later in pairwise(painted) if later > killed_at]
        at_most("longest gap of the page's pictures, seconds", max(gaps) / 1000, BACK_SECONDS)
