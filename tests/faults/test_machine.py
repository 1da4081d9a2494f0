"""A machine in trouble: disks that are full or read-only, a clock that jumps."""

import asyncio
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from asyncio import timeout
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any

import aiohttp
import pytest

from portrait.client import Client
from tests.boxes import FREE, ended, serving, wait_for, workers
from tests.people import Clip, clip
from tests.rtc import SIZE, Camera, viewer
from tests.two_workers import get, scrape
from tests.whip import publisher, watcher

BOX = ("--workers", "2", "--media-ports", "0-0", "--drain-seconds", "0")
DAY = 86_400
CLOCK = Path(__file__).parent / "clock.c"


@pytest.fixture(scope="module")
def shown() -> Clip:
    return clip(*SIZE, 30)


# Disks.


@pytest.fixture
def disk() -> Iterator[Path]:
    """A disk of its own, of a megabyte."""
    place = Path(tempfile.mkdtemp(prefix="disk-", dir="/tmp"))  # short: the workers' sockets shall fit
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", place], capture_output=True, text=True, check=False
    )
    if mounting.returncode:
        pytest.skip(f"no disk can be mounted here: {mounting.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
        place.rmdir()


def fill(disk: Path) -> None:
    """Leave no byte free."""
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def lock(disk: Path) -> None:
    """Make it read-only."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


def names(disk: Path) -> list[str]:
    """What a service has put there."""
    return [path.name for path in disk.glob("portrait-*")]


def on(disk: Path) -> dict[str, str]:
    """The environment of a service that writes everything there: its measurements and the workers' folder."""
    places = {name: str(disk) for name in ("TMPDIR", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "HOME")}
    return {**places, "PORTRAIT_CPU_SHARE": "0.8"}


async def assert_it_works(told: dict[str, Any], shown: Clip) -> None:
    """Streams of both kinds, and one that is published and watched."""
    url = told["page"].rstrip("/")
    async with Client(told["grpc"]) as client:
        assert (await client.segment(shown.frames[0])).error is None
    async with publisher(url, shown) as one, watcher(url) as other:
        await one.connect("/whip/desk")
        await other.connect("/whep/desk")
        await other.frame()


@pytest.mark.parametrize("trouble", [fill, lock])
async def test_a_box_starts_where_nothing_can_be_written(disk: Path, shown: Clip, trouble: Any) -> None:
    trouble(disk)
    with serving(*BOX, **on(disk)) as (process, told):
        await assert_it_works(told, shown)
        process.send_signal(signal.SIGTERM)
        status, log = await asyncio.to_thread(ended, process)
    assert status == 0, log


async def test_a_box_whose_tmpdir_is_too_deep_for_sockets_meets_elsewhere(tmp_path: Path, shown: Clip) -> None:
    deep = tmp_path / ("deep" * 25)
    deep.mkdir()
    with serving(*BOX, **on(deep)) as (process, told):
        await assert_it_works(told, shown)
        assert not names(deep)
        process.send_signal(signal.SIGTERM)
        status, log = await asyncio.to_thread(ended, process)
    assert status == 0, log


async def test_a_box_works_on_when_its_disk_is_full(disk: Path, shown: Clip) -> None:
    with serving(*BOX, **on(disk)) as (process, told):
        assert names(disk), "the box does not use this disk"
        fill(disk)
        await assert_it_works(told, shown)
        os.kill(workers(process.pid)[0], signal.SIGKILL)
        restarted = 'portrait_worker_restarts_total{worker="0"} 1.0'
        await asyncio.to_thread(wait_for, lambda: restarted in scrape(told["page"]), 60)
        await assert_it_works(told, shown)
        process.send_signal(signal.SIGTERM)
        status, log = await asyncio.to_thread(ended, process)
    assert status == 0, log


@pytest.fixture
def full_log() -> Iterator[IO[str]]:
    with Path("/dev/full").open("w") as file:
        yield file


@pytest.mark.parametrize("unbuffered", ["", "1"])  # as in a shell, and as in the image
async def test_a_log_that_cannot_be_written_costs_nobody_anything(
    unbuffered: str, full_log: IO[str], shown: Clip
) -> None:
    with serving(*BOX, "--log-level", "debug", stderr=full_log, PYTHONUNBUFFERED=unbuffered) as (process, told):
        await assert_it_works(told, shown)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 60) == 0


async def test_a_log_reader_that_pauses_stops_no_stream(shown: Clip) -> None:
    """As a container's log driver does when its disk is slow; here it never reads again."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    options = ("--workers", "1", "--log-level", "debug", "--drain-seconds", "0")
    try:
        with os.fdopen(writing, "w") as log, serving(*options, stderr=log) as (process, told):
            log.close()
            async with Client(told["grpc"]) as client, timeout(120):
                for _ in range(40):  # two lines and more each
                    assert (await client.segment(shown.frames[0])).error is None
                async with client.open_stream() as stream:
                    await stream.send(shown.frames[0], 1)
                    assert await stream.receive() is not None
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 60) == 0
    finally:
        os.close(reading)


@pytest.mark.parametrize("trouble", [fill, lock])
def test_a_box_that_cannot_keep_its_authority_says_so_in_a_line(disk: Path, trouble: Any) -> None:
    trouble(disk)
    done = subprocess.run(
        [sys.executable, "-m", "portrait", "serve", *FREE, "--workers", "1", "--tls", "auto", "--data", disk / "data"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "PORTRAIT_DATA" in done.stderr
    assert "Traceback" not in done.stderr


# The clock.


@contextmanager
def wall_clock(folder: Path) -> Iterator[tuple[dict[str, str], Callable[[float], None]]]:
    """The environment of a process with a time of day of its own, and what puts it so many seconds from ours."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not installed (make system-packages)")
    library, file = folder / "clock.so", folder / "offset"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, CLOCK, "-ldl"], check=True)

    def jump(seconds: float) -> None:
        with file.open("r+b") as written:
            written.write(struct.pack("=d", seconds))

    file.write_bytes(bytes(8))
    yield {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(file)}, jump


async def offset(told: dict[str, Any]) -> float:
    """How far the service's clock is from ours."""
    async with aiohttp.ClientSession() as http, http.get(told["page"] + "healthz") as answer:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()


async def test_a_clock_that_jumps_is_not_noticed_by_any_stream(tmp_path: Path, shown: Clip) -> None:
    with wall_clock(tmp_path) as (environ, jump), serving(*BOX, "--idle-seconds", "5", **environ) as (process, told):
        url = told["page"].rstrip("/")
        async with viewer(url, Camera(shown)) as one, Client(told["grpc"]) as client, client.open_stream() as stream:
            await one.connect()
            for seconds in (0, DAY, -DAY, 400 * DAY, 0):
                jump(seconds)
                async with timeout(60):
                    while abs(await offset(told) - seconds) > 60:  # aiohttp writes the same date for a second
                        await asyncio.sleep(0.1)
                for number in range(20):
                    await one.frame()
                    await stream.send(shown.frames[number], number)
                    reply = await stream.receive()
                    assert reply is not None
                    assert reply.error is None
                    assert 0 <= reply.wait_seconds < DAY / 2
                numbers: dict[str, Any] = await one.numbers()
                assert 0 <= numbers["latency_seconds"] < DAY / 2, numbers
                assert 0 <= numbers["frames_per_second"] < 100, numbers
                assert get(url + "/readyz")["workers"] == [True, True]
        process.send_signal(signal.SIGTERM)
        status, log = await asyncio.to_thread(ended, process)
    assert status == 0, log
    assert "has stood still" not in log
    assert "left behind" not in log
    assert "Traceback" not in log
