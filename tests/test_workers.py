"""Several workers as one box: real processes, killed and stopped."""

import asyncio
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from portrait.board import Board
from portrait.child import Orders, Worker
from portrait.client import Client, Reply
from portrait.settings import Settings
from portrait.supervisor import run_workers, share
from tests.boxes import FREE, ended, serving, wait_for, workers
from tests.browser import open_page, write_camera
from tests.people import Array, Clip, clip, room
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
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


def sessions(page: str) -> list[str]:
    """Their names; the part before the dash is the worker's index."""
    return [row["id"] for row in get(page + "v1/sessions")]


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
            killed_at = time.monotonic()
            os.kill(workers(process.pid)[index], signal.SIGKILL)
            # Those of the other worker go on, and new ones are taken at once.
            for _ in range(10):
                await neighbour.send(room(96, 64), 1)
                assert await neighbour.receive() is not None
            async with client.open_stream() as fresh:
                await fresh.send(room(96, 64), 1)
                assert await fresh.receive() is not None
            await until(lambda: all(moments[-1][0] > killed_at + BACK_SECONDS for moments in streams))
            done.set()
            await asyncio.gather(*watching)
        for moments in streams:
            assert max(later[0] - earlier[0] for earlier, later in pairwise(moments)) < BACK_SECONDS
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
    assert "Traceback" not in log


async def test_a_killed_publishers_name_is_free_again_and_its_sessions_are_unknown(shown: Clip) -> None:
    with serving("--workers", "2") as (process, told):
        url = told["page"].rstrip("/")
        async with publisher(url, shown) as one, publisher(url, shown) as two:
            await one.connect("/whip/desk")
            index = worker_of(one.location)
            os.kill(workers(process.pid)[index], signal.SIGKILL)
            async with asyncio.timeout(BACK_SECONDS):
                offer = await two.offer()
                while (response := await two.post(offer, "/whip/desk")).status != 201:
                    assert response.status in (409, 503), await response.text()
                    await asyncio.sleep(0.05)
            async with two.http.get(one.location) as gone:
                assert gone.status == 404


def test_sigterm_drains_every_worker_and_the_status_is_0() -> None:
    with serving("--workers", "2", "--log-format", "json") as (process, _):
        process.send_signal(signal.SIGTERM)
        status, log = ended(process)
    assert status == 0, log
    assert log.count("drained") == 2
    assert "Traceback" not in log


def test_workers_stop_when_their_supervisor_is_killed() -> None:
    with serving("--workers", "2") as (process, _):
        orphans = workers(process.pid)
        process.kill()
        for orphan in orphans:
            wait_for(lambda orphan=orphan: not alive(orphan))


def alive(pid: int) -> bool:
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def test_a_worker_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setattr("portrait.child.SILENCE_SECONDS", 5.0)
    async with run_workers(settings, 2) as box:
        page = f"http://127.0.0.1:{box.http_port}/"
        os.kill(workers(os.getpid())[-1], signal.SIGSTOP)
        restarted = 'portrait_worker_restarts_total{worker="1"} 1.0'
        await asyncio.to_thread(wait_for, lambda: restarted in scrape(page), 60)


async def sleeping_worker(folder: Path, *command: str) -> Worker:
    """A worker whose process is `command`, which tells the board nothing."""
    worker = Worker(Orders({}, str(folder), 0, 0, 1, 0, 0), Board(folder, 0, 1))
    worker._process = await asyncio.create_subprocess_exec(*command)
    return worker


async def test_only_looks_that_hear_nothing_count_against_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that was paused for an hour kills none of its workers when it goes on."""
    worker = await sleeping_worker(tmp_path, "sleep", "60")
    killed: list[int] = []
    monkeypatch.setattr(worker, "_signal", killed.append)
    board, now = Board(tmp_path, 0, 1), time.monotonic()
    board.tell()
    worker.kill_if_silent()
    monkeypatch.setattr("time.monotonic", lambda: now + 3600)
    for _ in range(20):
        worker.kill_if_silent()
    board.tell()
    for _ in range(21):
        worker.kill_if_silent()
    assert not killed
    worker.kill_if_silent()
    monkeypatch.undo()
    assert killed == [signal.SIGKILL]
    await worker.stop(0)


async def test_a_worker_that_could_not_be_started_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine may be short of memory or processes for a while."""
    worker, started = await sleeping_worker(tmp_path, "true"), asyncio.Event()
    tries = iter([OSError(errno.EAGAIN, "no more processes"), None])

    async def start() -> None:
        if error := next(tries):
            raise error
        started.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(worker, "start", start)
    keeping = asyncio.create_task(worker.keep())
    waiting = asyncio.create_task(started.wait())
    done, _ = await asyncio.wait((keeping, waiting), timeout=30, return_when=asyncio.FIRST_COMPLETED)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert done == {waiting}


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--model", "/nowhere.tflite"], 2, "/nowhere.tflite: cannot be read"),
        (["--media-ports", "50000-50000"], 1, "1 ports for 2 workers"),
        (["--host", "nobody.invalid", "--insecure"], 1, "cannot listen on nobody.invalid:0: "),
    ],
)
def test_workers_that_cannot_start_are_not_tried_again(arguments: list[str], status: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "portrait", "serve", *FREE, "--workers", "2", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_whose_files_have_gone_says_so_in_one_line(settings: Settings, tmp_path: Path) -> None:
    """As one that is started again does, hours after the settings were looked at."""
    gone = settings.model_dump(mode="json") | {"turn_secret": "", "tokens": str(tmp_path / "tokens")}
    orders = Orders(gone, str(tmp_path), index=0, place=0, count=1, http_socket=0, restarts=1)
    done = subprocess.run(
        [sys.executable, "-m", "portrait.worker"],
        input=json.dumps(asdict(orders)) + "\n", capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert f"PORTRAIT_TOKENS='{tmp_path}/tokens': Path does not point to a file" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_busy_port_is_said_in_one_line_whoever_has_it(box: tuple[Process, dict[str, Any]]) -> None:
    """Another box's gRPC port too, which SO_REUSEPORT would let both have."""
    taken = {"--http-port": box[1]["page"].split(":")[2].rstrip("/"), "--grpc-port": box[1]["grpc"].split(":")[1]}
    for flag, port in taken.items():
        done = subprocess.run(
            [sys.executable, "-m", "portrait", "serve", *FREE, "--workers", "2", flag, port],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 1, done.stderr
        assert port in done.stderr.splitlines()[-1]


def test_media_ports_are_shared_out_without_rest_or_overlap() -> None:
    parts = [share("50000-50199", index, 3) for index in range(3)]
    assert parts == ["50000-50065", "50066-50132", "50133-50199"]
    assert share("0-0", 1, 3) == "0-0"


def test_a_name_released_while_the_board_forgets_another_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever forgets is the one that starts workers again."""
    boards, listed = [Board(tmp_path, index, 2) for index in range(2)], Path.iterdir
    for index, stream in enumerate(("desk", "door")):
        assert boards[index].claim(stream)

    def list_then_release(folder: Path) -> list[Path]:
        found = list(listed(folder))
        boards[0].release("desk")
        return found

    monkeypatch.setattr(Path, "iterdir", list_then_release)
    boards[0].forget(1)
    assert boards[0].owner_of_stream("door") is None
    for board in boards:
        board.close()


def test_the_board_forgets_who_is_gone(tmp_path: Path) -> None:
    boards = [Board(tmp_path, index, 2) for index in range(2)]
    assert boards[1].claim("desk")
    assert not boards[0].claim("desk")
    assert boards[0].owner_of_stream("desk") == 1
    boards[1].tell(sessions=3, used=0.5)
    assert [row.sessions for row in boards[0].rows] == [0, 3, 0]  # and room for a successor
    boards[0].forget(1)
    assert boards[0].rows[1].alive_at == 0
    assert boards[0].owner_of_stream("desk") is None
    assert boards[0].claim("desk")
    assert boards[0].owner_of_id(boards[1].new_id()) == 1
    assert [boards[0].owner_of_id(name) for name in ("3-x", "x", "-1-x", "")] == [None] * 4
    for board in boards:
        board.close()


FRAMES = """() => {
  const video = document.getElementById("result");
  window.painted = [];
  const note = (now) => { window.painted.push(performance.timeOrigin + now); video.requestVideoFrameCallback(note); };
  video.requestVideoFrameCallback(note);
}"""
"""Keeps when each picture of the result was painted, in milliseconds of the epoch."""


async def shows(page: Page, expression: str) -> None:
    async with asyncio.timeout(60):  # asked from outside: the page's policy lets nobody evaluate anything inside
        while not await page.evaluate(expression):
            await asyncio.sleep(0.05)


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
            await shows(page, f"window.painted.at(-1) > {killed_at + 3000}")
            painted = await page.evaluate("window.painted")
            assert lost not in await asyncio.to_thread(sessions, told["page"])
        gaps = [later - earlier for earlier, later in pairwise(painted) if later > killed_at]
        assert max(gaps) < 1000 * BACK_SECONDS
