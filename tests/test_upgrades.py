"""Changing a running box without losing a stream: real processes, real signals."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from asyncio import timeout
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from portrait.client import Client, Reply
from portrait.core.segmenters import EMBEDDED
from portrait.server.signals import RELOAD, REPLACE
from tests.boxes import ended, serving, wait_for, workers
from tests.browser import Browsers
from tests.people import clip, room
from tests.rtc import SIZE, Camera, viewer
from tests.tabs import KIT
from tests.timing import at_most

Process = subprocess.Popen[str]

PAINTED = """(kit.painted = [], (function note(now) {
  kit.painted.push(now);
  kit.video.requestVideoFrameCallback(note);
})(performance.now()), true)"""
"""Keeps when each picture was painted, in milliseconds."""


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as response:
        return json.load(response)


class Log:
    """What a process has said, as far as it has been read."""

    def __init__(self, process: Process) -> None:
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        self._descriptor, self.text = process.stderr.fileno(), ""

    def says(self, what: str, count: int = 1) -> bool:
        try:
            while chunk := os.read(self._descriptor, 65536):
                self.text += chunk.decode()
        except BlockingIOError:
            pass
        return self.text.count(what) >= count


@asynccontextmanager
async def streaming(target: str, **options: Any) -> AsyncIterator[list[tuple[float, Reply]]]:
    """A stream of 30 frames per second, and what has come of it, for the length of the block."""
    came: list[tuple[float, Reply]] = []
    done = asyncio.Event()

    async def frames() -> AsyncIterator[Any]:
        while not done.is_set():
            await asyncio.sleep(1 / 30)
            yield room(96, 64)

    async def run() -> None:
        async with Client(target) as client, aclosing(client.stream(frames(), **options)) as replies:
            async for reply in replies:
                came.append((time.monotonic(), reply))  # noqa: PERF401

    task = asyncio.create_task(run())
    try:
        yield came
        done.set()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], Any], seconds: float = 180.0) -> None:
    async with timeout(seconds):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of a network that a test may replace."""
    path = tmp_path / "own.tflite"
    shutil.copy(EMBEDDED / "portrait.tflite", path)
    return path


@pytest.fixture
def configured(tmp_path: Path, model: Path) -> Path:
    path = tmp_path / "portrait.toml"
    path.write_text(f'model = "{model}"\nmax_sessions = 8\n')
    return path


@pytest.mark.timing
async def test_workers_make_way_one_by_one_and_no_stream_is_lost() -> None:
    """A stream that asked for every frame, and one that takes the newest."""
    with serving("--workers", "2", "--drain-seconds", "10") as (process, told):
        page, log = told["page"], Log(process)
        old = workers(process.pid)
        async with streaming(told["grpc"], every_frame=True) as one, streaming(told["grpc"]) as two:
            await until(lambda: len(one) > 20 and len(two) > 20)
            began = time.monotonic()
            process.send_signal(REPLACE)
            async with timeout(180):
                while not log.says("has taken its place", 2):
                    # There is no moment with less room.
                    assert (await asyncio.to_thread(get, page + "readyz"))["workers"].count(True) >= 2
                    await asyncio.sleep(0.05)
            await until(lambda: len(workers(process.pid)) == 2 and not set(workers(process.pid)) & set(old))
            # Ready all the time, and all of it again at the end.
            await until(lambda: get(page + "readyz")["workers"] == [True, True])
            last = time.monotonic()
            await until(lambda: one[-1][0] > last and two[-1][0] > last)
        for came in (one, two):
            assert all(reply.error is None for _, reply in came)
            at_most("longest gap, seconds", max(later[0] - earlier[0] for earlier, later in pairwise(came)), 3.0)
            assert [reply.id for _, reply in came] == sorted({reply.id for _, reply in came})
        assert [reply.id for _, reply in one] == list(range(len(one)))
        assert one[0][0] < began < one[-1][0]
        # Both moved by themselves, as they were told to; nobody was cut off.
        await until(lambda: log.says("drained sessions_cut=0", 2))
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        log.says("")
    assert process.returncode == 0, log.text
    assert "Traceback" not in log.text
    assert "its sessions are lost" not in log.text


@pytest.mark.timing
async def test_a_page_goes_over_without_a_gap_when_its_worker_makes_way(tmp_path: Path) -> None:
    """One that is sent composed pictures, then one that composes by masks."""
    with serving("--workers", "2", "--drain-seconds", "20") as (process, told):
        log = Log(process)
        async with AsyncExitStack() as stack:
            browser = Browsers(tmp_path, stack)
            for count, result in ((2, "composite"), (4, "data")):
                async with browser.chromium(told["page"]) as page:
                    await page.evaluate(f"(() => {{ {KIT} }})()")
                    await page.evaluate(f"kit.connect({{ result: '{result}', mode: 'color' }})")
                    assert len(await page.evaluate("kit.watch(3)")) == 3
                    await page.evaluate(PAINTED)
                    await replace_workers(process, log, count)
                    assert len(await page.evaluate("kit.watch(3)")) == 3
                    # It was never without a session, and no session had to be cut.
                    assert [event for event in await page.evaluate("kit.events") if event[0] == "state"] == []
                    await until(lambda count=count: log.says("drained sessions_cut=0", count))  # type: ignore[misc]
                    painted = await page.evaluate("kit.painted")
                    gap = max(later - earlier for earlier, later in pairwise(painted))
                    at_most(f"{result}: longest of {len(painted)} gaps, seconds", gap / 1000, 2.0)
        process.send_signal(signal.SIGTERM)
        assert (await asyncio.to_thread(ended, process))[0] == 0


async def replace_workers(process: Process, log: Log, count: int) -> None:
    """Have both workers replaced, and wait until the log has told of `count` replacements in all."""
    old = workers(process.pid)
    process.send_signal(REPLACE)
    await until(lambda: log.says("has taken its place", count))
    await until(lambda: len(workers(process.pid)) == 2 and not set(workers(process.pid)) & set(old))


@pytest.mark.timing
@pytest.mark.parametrize("count", [1, 2])
async def test_a_model_is_replaced_under_running_streams(count: int, configured: Path, tmp_path: Path) -> None:
    with serving("--workers", str(count), "--config", str(configured)) as (process, told):
        page, log = told["page"], Log(process)
        async with streaming(told["grpc"]) as came, viewer(page.rstrip("/"), Camera(clip(*SIZE, 10))) as call:
            await call.connect(mode="blur")
            await call.frame()
            await until(lambda: len(came) > 10)
            fresh = tmp_path / "fresh.tflite"
            shutil.copy(EMBEDDED / "portrait-int8.tflite", fresh)
            configured.write_text(f'model = "{fresh}"\nmax_sessions = 9\nlog_level = "debug"\n')
            process.send_signal(RELOAD)
            await until(lambda: log.says("reloaded", count))
            assert "needs_restart=max_sessions" in log.text
            assert [model["name"] for model in get(page + "v1/models") if model["default"]] == ["fresh"]
            seen = len(came)
            await until(lambda: len(came) > seen + 10)
            # Nobody was cut: the same sessions, with the network they had.
            assert (await call.numbers())["model"] == "own"
            await call.frame()
            assert "first frame" not in log.text  # which is told at level debug only
            async with Client(told["grpc"]) as client, client.open_stream() as stream:
                assert stream.info.model.name == "fresh"
                await stream.send(room(96, 64), 1)
                assert await stream.receive() is not None
                await until(lambda: log.says("first frame"))
            assert {row["model"] for row in get(page + "v1/sessions")} >= {"own"}
        assert all(reply.error is None for _, reply in came)
        at_most("longest gap, seconds", max(later[0] - earlier[0] for earlier, later in pairwise(came)), 3.0)
        assert len({reply.id for _, reply in came}) == len(came)
        log.says("")
        assert "asked to leave" not in log.text
        process.send_signal(signal.SIGTERM)
        assert (await asyncio.to_thread(ended, process))[0] == 0


@pytest.mark.parametrize("count", [1, 2])
async def test_what_cannot_be_used_changes_nothing(count: int, configured: Path, model: Path) -> None:
    whole = model.read_bytes()
    with serving("--workers", str(count), "--config", str(configured)) as (process, told):
        log = Log(process)
        for bad in (b"no network at all", whole[: len(whole) // 2]):
            model.write_bytes(bad)
            seen = log.text.count("nothing has changed")
            process.send_signal(RELOAD)
            await until(lambda seen=seen: log.says("nothing has changed", seen + count))  # type: ignore[misc]
        old = workers(process.pid)
        process.send_signal(REPLACE)
        refused = "there is one worker" if count == 1 else "worker 0 stays: its successor did not come up"
        await until(lambda: log.says(refused))
        assert workers(process.pid) == old
        configured.write_text("max_sessions = -1\n")
        seen = log.text.count("nothing has changed")
        process.send_signal(RELOAD)
        await until(lambda: log.says("nothing has changed", seen + 1))
        assert "PORTRAIT_MAX_SESSIONS=-1" in log.text
        async with Client(told["grpc"]) as client:
            assert (await client.segment(room(64, 48))).array.size
        process.send_signal(signal.SIGTERM)
        assert (await asyncio.to_thread(ended, process))[0] == 0


async def stream_of_the_first(client: Client, stack: AsyncExitStack) -> None:
    """A stream, for the length of the stack, that worker 0 has: the kernel places connections."""
    while True:
        async with AsyncExitStack() as own:
            stream = await own.enter_async_context(client.open_stream())
            if stream.info.session_id.startswith("0-"):
                stack.push_async_exit(own.pop_all())
                return


async def test_the_end_of_the_box_is_not_held_up_by_a_succession() -> None:
    with serving("--workers", "2", "--drain-seconds", "3") as (process, told):
        log = Log(process)
        async with Client(told["grpc"]) as client, AsyncExitStack() as stack:
            await stream_of_the_first(client, stack)
            process.send_signal(REPLACE)
            await until(lambda: log.says("has taken its place"))
            every = workers(process.pid)
            assert len(every) == 3
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: process.poll() is not None, 40)
            assert not [pid for pid in every if Path(f"/proc/{pid}").exists()]
        log.says("")
    assert process.returncode == 0, log.text
    # Who was leaving had its time as well.
    assert log.text.count("drained sessions_cut") == 3, log.text
    assert "Traceback" not in log.text
