"""The supervisor and the state that workers share: workers that hang, die or cannot start, and what they leave."""

import asyncio
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from asyncio import timeout
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import pytest

from portrait.server.signals import RELOAD, REPLACE, Signals
from portrait.settings import Settings
from portrait.workers.ids import new_id, owner_of_id
from portrait.workers.main import _reload
from portrait.workers.process import SETTINGS_ERROR, Worker, WorkerConfig, describe
from portrait.workers.shared_state import SharedState
from portrait.workers.supervisor import Supervisor, WorkerFailed, run_workers, share
from tests.boxes import FREE, ended, wait_for, workers
from tests.ports import free_port
from tests.two_workers import Process, box, get, scrape

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
    worker = Worker(WorkerConfig({}, str(folder), 0, 0, 1, 0, 0), SharedState(folder, 0, 1))
    worker._process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
    return worker


async def test_only_checks_that_find_no_sign_of_life_count_against_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that was paused for an hour kills none of its workers when it goes on."""
    worker = await sleeping_worker(tmp_path, "sleep", "60")
    killed: list[int] = []
    monkeypatch.setattr(worker, "_signal", killed.append)
    shared, now = SharedState(tmp_path, 0, 1), time.monotonic()
    shared.tell()
    worker.kill_if_silent()
    monkeypatch.setattr("time.monotonic", lambda: now + 3600)
    for _ in range(20):
        worker.kill_if_silent()
    shared.tell()
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
    """A machine may be short of memory or processes for a while; an unforeseen error is logged whole."""
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
        (["--media-ports", "50000-50000"], 1, "got 1 ports, expected at least 2"),
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


@pytest.mark.parametrize("module", ["portrait.workers.main", "portrait.worker"])
def test_a_worker_whose_files_have_gone_says_so_in_one_line(module: str, settings: Settings, tmp_path: Path) -> None:
    """It may be started again hours after the settings were checked. Its former name works as well."""
    gone = settings.model_dump(mode="json") | {"turn_secret": "", "tokens": str(tmp_path / "tokens")}
    config = WorkerConfig(gone, str(tmp_path), index=0, place=0, count=1, http_socket=0, restarts=1)
    done = subprocess.run(
        [sys.executable, "-m", module],
        input=json.dumps(asdict(config)) + "\n", capture_output=True, text=True, timeout=60, check=False,
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


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (3, "ended with status 3"),
        (-signal.SIGKILL, "killed by SIGKILL"),
        (-signal.SIGRTMIN, "killed by SIGRTMIN"),
        (-35, "killed by SIGRTMIN+1"),
        (-63, "killed by SIGRTMIN+29"),
        (-32, "killed by signal 32"),
    ],
)
def test_every_end_of_a_process_has_words(status: int, words: str) -> None:
    assert describe(status) == words


@pytest.mark.parametrize("number", [signal.SIGSEGV, 35, 63])
async def test_a_worker_that_any_signal_ends_is_started_again(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, started = await sleeping_worker(tmp_path, "sleep", "60"), asyncio.Event()

    async def start() -> None:
        started.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(worker, "start", start)
    keeping = asyncio.create_task(worker.keep())
    waiting = asyncio.create_task(started.wait())
    assert worker._process is not None
    worker._process.send_signal(number)
    done, _ = await asyncio.wait((keeping, waiting), timeout=60, return_when=asyncio.FIRST_COMPLETED)
    for task in (keeping, waiting):
        task.cancel()
    await asyncio.gather(keeping, waiting, return_exceptions=True)
    assert done == {waiting}


async def test_a_worker_is_started_again_though_what_it_left_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A cleaner of /tmp takes folders that look old."""
    folder = tmp_path / "portrait-x"
    folder.mkdir()
    worker, started = await sleeping_worker(folder, "true"), asyncio.Event()
    shutil.rmtree(folder)

    async def start() -> None:
        started.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(worker, "start", start)
    keeping = asyncio.create_task(worker.keep())
    async with timeout(60):
        await started.wait()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert "what it left behind cannot be removed" in caplog.text


async def test_settings_that_stop_a_worker_from_starting_are_not_tried_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It refused them at the reload and was killed later: a fresh process would refuse them as well, and end."""
    worker = await sleeping_worker(tmp_path, "true")
    await worker.reload({"model": "/gone.tflite"})
    tried: list[dict[str, Any]] = []
    up = asyncio.Event()

    async def start() -> None:
        tried.append(worker._config.settings)
        if len(tried) == 1:
            raise WorkerFailed(SETTINGS_ERROR)
        up.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(worker, "start", start)
    keeping = asyncio.create_task(worker.keep())
    async with timeout(60):
        await up.wait()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert tried == [{"model": "/gone.tflite"}, {}]
    assert "takes the earlier ones" in caplog.text


async def test_a_keeper_that_fails_says_so(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(self: Worker) -> None:
        raise ZeroDivisionError("injected")

    monkeypatch.setattr(Worker, "keep", fail)
    shared = SharedState(tmp_path, 0, 2)
    async with Supervisor(settings, shared, 0, 0, 0).keeping():
        async with timeout(60):
            while caplog.text.count("worker-keep has failed: injected") < 2:
                await asyncio.sleep(0.01)
    shared.close()


async def real_worker(settings: Settings, folder: Path, stack: ExitStack) -> Worker:
    """A worker as the supervisor makes it, not yet started."""
    listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    shared = stack.enter_context(closing(SharedState(folder, 0, 2)))
    document = settings.model_dump() | {"grpc_port": free_port(), "media_ports": "0-0"}
    return Worker(WorkerConfig(document, str(folder), 0, 0, 2, listening.fileno(), 0), shared)


async def process_of(worker: Worker) -> int:
    """The id of its process, as soon as there is one."""
    async with timeout(60):
        while worker._process is None:
            await asyncio.sleep(0)
    return worker._process.pid


async def test_a_reload_that_comes_while_a_worker_starts_is_not_lost(
    settings: Settings, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack:
        worker = await real_worker(settings, tmp_path, stack)
        starting = asyncio.create_task(worker.start())
        await process_of(worker)
        await asyncio.sleep(0)  # its configuration is written first
        await worker.reload(worker._config.settings | {"drain_seconds": 0.5})
        await starting
        said: list[str] = []

        def reloaded() -> bool:
            said.append(capfd.readouterr().err)
            return "reloaded model=" in "".join(said)

        await asyncio.to_thread(wait_for, reloaded)
        assert await worker.stop(0) == 0


async def test_a_worker_that_hangs_while_it_starts_is_killed_and_started_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("portrait.workers.process.START_SECONDS", 2.0)
    with ExitStack() as stack:
        worker = await real_worker(settings, tmp_path, stack)
        starting = asyncio.create_task(worker.first_start())
        hung = await process_of(worker)
        os.kill(hung, signal.SIGSTOP)
        async with timeout(60):
            while "accepts no work after 2 s, killed" not in caplog.text:
                await asyncio.sleep(0.01)
        worker._patience = 60.0
        assert (await starting)["model"] == "portrait"
        assert await process_of(worker) != hung
        assert await worker.stop(0) == 0


@contextmanager
def box_that_starts(*arguments: str) -> Iterator[Process]:
    """`portrait serve` as a process that has announced nothing yet."""
    process = subprocess.Popen(
        [sys.executable, "-m", "portrait", "serve", "--json", *FREE, *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("place", [0, 1])
def test_a_worker_that_is_killed_while_the_box_starts_is_started_again(place: int) -> None:
    with box_that_starts("--workers", "2") as process:
        (unlucky,) = wait_for(lambda: workers(process.pid)[place : place + 1])
        os.kill(unlucky, signal.SIGKILL)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        assert get(json.loads(line)["page"] + "readyz") == {"status": "ready", "workers": [True, True]}
        process.send_signal(signal.SIGTERM)
        status, log = ended(process)
    assert status == 0, log
    assert f"worker {place}: killed by SIGKILL before it accepted work" in log


def test_a_box_whose_worker_is_killed_at_every_start_says_why_and_ends() -> None:
    with box_that_starts("--workers", "2") as process:
        killed: set[int] = set()
        for _ in range(3):
            fresh = wait_for(lambda killed=killed: set(workers(process.pid)) - killed)
            killed |= fresh
            os.kill(min(fresh), signal.SIGKILL)
        status, log = ended(process)
    assert status == 128 + signal.SIGKILL, log
    assert log.count("worker 0: killed by SIGKILL before it accepted work") == 3
    assert "the box ends" in log
    assert "Traceback" not in log


def catches(process: int, number: signal.Signals) -> bool:
    """Whether the process has a handler for the signal."""
    status = Path(f"/proc/{process}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1]
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("count", ["1", "2"])
def test_a_reload_asked_for_while_the_box_starts_is_not_lost(count: str) -> None:
    with box_that_starts("--workers", count) as process:
        wait_for(lambda: catches(process.pid, RELOAD))
        process.send_signal(RELOAD)
        assert process.stdout is not None
        assert process.stdout.readline()
        assert process.stderr is not None
        wait_for(lambda: "reloaded" in process.stderr.readline())  # type: ignore[union-attr]
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 0


def test_a_box_that_is_stopped_while_a_worker_hangs_at_its_start_stops() -> None:
    with box_that_starts("--workers", "2") as process:
        wait_for(lambda: catches(process.pid, signal.SIGTERM))
        (hung,) = wait_for(lambda: workers(process.pid)[:1])
        os.kill(hung, signal.SIGSTOP)
        process.send_signal(signal.SIGTERM)
        status, log = ended(process)
    assert status == 0, log
    assert not Path(f"/proc/{hung}").exists()


def test_the_first_time_a_box_is_ready_every_worker_is() -> None:
    port = free_port()
    with box_that_starts("--workers", "2", "--http-port", str(port)):
        asked: list[Any] = []

        def ready() -> bool:
            with suppress(OSError):  # not listening yet, or 503
                asked.append(get(f"http://127.0.0.1:{port}/readyz"))
            return bool(asked)

        wait_for(ready, 180)
    assert asked == [{"status": "ready", "workers": [True, True]}]


async def test_an_unforeseen_error_in_a_reload_is_logged_and_the_next_one_is_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    signals, errors = Signals(), iter([ValueError("injected"), RuntimeError("can't start new thread"), None])

    async def replace() -> None:
        if error := next(errors):
            os.kill(os.getpid(), REPLACE)
            raise error
        signals.stop.set()

    os.kill(os.getpid(), REPLACE)
    async with timeout(60):
        await signals.answer({REPLACE: replace})
    assert caplog.text.count("nothing has changed") == 2
    assert "ValueError: injected" in caplog.text


async def test_an_unforeseen_error_in_a_workers_reload_is_logged_and_the_next_one_is_applied(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Service:
        tried: ClassVar[list[Settings]] = []

        async def reload(self, settings: Settings) -> None:
            self.tried.append(settings)
            if len(self.tried) == 1:
                raise RuntimeError("can't start new thread")

    lines = asyncio.StreamReader()
    lines.feed_data(b'{"drain_seconds": 1}\n[not settings]\n{"drain_seconds": 2}\n')
    lines.feed_eof()
    await _reload(lines, Service())  # type: ignore[arg-type]
    assert [settings.drain_seconds for settings in Service.tried] == [1, 2]
    assert "RuntimeError: can't start new thread" in caplog.text


def test_media_ports_are_shared_out_without_rest_or_overlap() -> None:
    parts = [share("50000-50199", index, 3) for index in range(3)]
    assert parts == ["50000-50065", "50066-50132", "50133-50199"]
    assert share("", 1, 3) == ""
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
