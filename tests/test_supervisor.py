"""The supervisor and the state that workers share: workers that hang, die or cannot start, and what they leave."""

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from portrait.settings import Settings
from portrait.workers.ids import new_id, owner_of_id
from portrait.workers.process import Orders, Worker
from portrait.workers.shared_state import SharedState
from portrait.workers.supervisor import run_workers, share
from tests.boxes import FREE, wait_for, workers
from tests.two_workers import Process, box, scrape

__all__ = ["box"]  # fixture

WRITER = """
import itertools, pathlib, sys
from portrait.workers.shared_state import SharedState

shared = SharedState(pathlib.Path(sys.argv[1]), 1, 1)
for count in itertools.count():
    shared.tell(ready=True, sessions=1 + count % 2)
    if not count:
        print("ready", flush=True)
"""


async def test_a_worker_that_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setattr("portrait.workers.process.SILENCE_SECONDS", 5.0)
    async with run_workers(settings, 2) as box:
        page = f"http://127.0.0.1:{box.http_port}/"
        os.kill(workers(os.getpid())[-1], signal.SIGSTOP)
        restarted = 'portrait_worker_restarts_total{worker="1"} 1.0'
        await asyncio.to_thread(wait_for, lambda: restarted in scrape(page), 60)


async def sleeping_worker(folder: Path, *command: str) -> Worker:
    """A worker whose process is `command`, which never writes its row."""
    worker = Worker(Orders({}, str(folder), 0, 0, 1, 0, 0), SharedState(folder, 0, 1))
    worker._process = await asyncio.create_subprocess_exec(*command)
    return worker


async def test_only_looks_that_hear_nothing_count_against_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that was paused for an hour kills none of its workers when it goes on."""
    worker = await sleeping_worker(tmp_path, "sleep", "60")
    killed: list[int] = []
    monkeypatch.setattr(worker, "_signal", killed.append)
    board, now = SharedState(tmp_path, 0, 1), time.monotonic()
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine may be short of memory or processes for a while; and what nobody foresaw is told, and tried again."""
    worker, started = await sleeping_worker(tmp_path, "true"), asyncio.Event()
    tries = iter([OSError(errno.EAGAIN, "no more processes"), ValueError("what it announced is no JSON"), None])

    async def start() -> None:
        if error := next(tries):
            raise error
        started.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(worker, "start", start)
    keeping = asyncio.create_task(worker.keep())
    waiting = asyncio.create_task(started.wait())
    done, _ = await asyncio.wait((keeping, waiting), timeout=60, return_when=asyncio.FIRST_COMPLETED)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert done == {waiting}
    told = [record for record in caplog.records if "cannot be started" in record.message]
    assert [bool(record.exc_info) for record in told] == [False, True]


async def test_only_a_worker_that_is_still_coming_up_may_be_killed_by_its_stop(tmp_path: Path) -> None:
    worker = await sleeping_worker(tmp_path, "sleep", "60")
    assert await worker.stop(0) == 0
    worker = await sleeping_worker(tmp_path, "sleep", "60")
    worker._accepts = True
    assert await worker.stop(0) == -signal.SIGTERM


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
        [sys.executable, "-m", "portrait.workers.main"],
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


def test_a_name_released_while_those_of_another_worker_are_freed_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor frees them, and must not fail: it starts workers again."""
    states, listed = [SharedState(tmp_path, index, 2) for index in range(2)], Path.iterdir
    for index, stream in enumerate(("desk", "door")):
        assert states[index].stream_names.claim(stream)

    def list_then_release(folder: Path) -> list[Path]:
        found = list(listed(folder))
        states[0].stream_names.release("desk")
        return found

    monkeypatch.setattr(Path, "iterdir", list_then_release)
    states[0].forget(1)
    assert states[0].stream_names.owner("door") is None
    for state in states:
        state.close()


def test_a_row_is_never_read_half_written(tmp_path: Path) -> None:
    """By a process beside the one that writes, whenever the kernel stops that."""
    shared = SharedState(tmp_path, 0, 1)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        for _ in range(200_000):
            row = shared.rows[1]
            assert row.alive_at
            assert row.ready
            assert row.sessions in (1, 2)
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.communicate()


def test_nothing_is_left_of_a_worker_that_has_ended(tmp_path: Path) -> None:
    one, other = (SharedState(tmp_path, index, 2) for index in range(2))
    assert other.stream_names.claim("desk")
    assert not one.stream_names.claim("desk")
    assert one.stream_names.owner("desk") == 1
    other.tell(sessions=3, used=0.5)
    assert [row.sessions for row in one.rows] == [0, 3, 0]  # the last row is for a successor
    one.forget(1)
    assert one.rows[1].alive_at == 0
    assert one.stream_names.owner("desk") is None
    assert one.stream_names.claim("desk")
    for state in (one, other):
        state.close()


def test_an_id_names_the_worker_that_made_it() -> None:
    assert owner_of_id(new_id(1), rows=3) == 1
    assert [owner_of_id(name, rows=3) for name in ("3-x", "x", "-1-x", "")] == [None] * 4


def test_a_box_is_not_ready_before_every_worker_has_come_up(tmp_path: Path) -> None:
    supervisor, worker = SharedState(tmp_path, 0, 2), SharedState(tmp_path, 1, 2)
    worker.tell(ready=True)
    assert not worker.started
    supervisor.mark_started()
    assert worker.started
    for state in (supervisor, worker):
        state.close()
