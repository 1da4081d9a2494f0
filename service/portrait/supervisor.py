"""The supervisor: keeps the workers of a box running. No native library of theirs is ever loaded here.

Workers are started anew, not forked: gRPC and OpenCV keep threads that a fork would cut. Each gets its orders on
standard input, which stays open: its end tells a worker that the supervisor is gone.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

from pydantic import SecretStr

from portrait.board import Board
from portrait.settings import Settings

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds before a worker that ended is started again; doubled each time it ends without having worked for a while."""

STEADY_SECONDS = 60.0
"""A worker that has worked for so long has earned the first pause again."""

SILENCE_SECONDS = 20.0
"""A worker whose event loop shows no sign of life for so long hangs, and is killed."""

STOP_SECONDS = 20.0
"""How long workers may take to stop beyond their drain; whoever is left is killed."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker is told on its standard input, as one line of JSON."""

    settings: dict[str, Any]
    folder: str
    index: int
    count: int
    http_socket: int
    """Descriptor of the listening socket, which all workers share."""
    restarts: int


@dataclass(frozen=True, slots=True)
class Box:
    """A box whose workers all accept work."""

    http_port: int
    grpc_port: int
    model: str


class WorkerFailed(Exception):
    """A worker did not come up, or did not stop as it should. `status` is the process's; it has said why."""

    def __init__(self, status: int) -> None:
        super().__init__(f"a worker ended with status {status}")
        self.status = status


@asynccontextmanager
async def run_workers(settings: Settings, count: int) -> AsyncIterator[Box]:
    """`count` workers for the length of the block, each started again when it ends; drains them at its end.

    The first one starts alone: what it measures of the machine the others read, and what is wrong with the settings is
    said once.

    Raises:
        OSError: an address cannot be bound, or there is nowhere to put a folder.
        WorkerFailed: a worker did not come up, or did not stop in time or in order.
    """
    with _folder(count) as folder, _listening(settings) as listening, _reserved(settings) as grpc_port:
        board = Board(folder, count=count)
        workers = []
        for index in range(count):
            own = settings.model_copy(
                update={"grpc_port": grpc_port, "media_ports": share(settings.media_ports, index, count)}
            )
            orders = Orders(own.model_dump(), str(folder), index, count, listening.fileno(), 0)
            workers.append(_Worker(orders, board))
        try:
            announced = await workers[0].start()
            await asyncio.gather(*(worker.start() for worker in workers[1:]))
            async with _keeping(workers, board):
                yield Box(listening.getsockname()[1], grpc_port, announced["model"])
        finally:
            ends = await asyncio.gather(*(worker.stop(settings.drain_seconds) for worker in workers))
            board.close()
        if any(ends):
            raise WorkerFailed(1)


def share(ports: str, index: int, count: int) -> str:
    """A worker's part of the range FIRST-LAST, in the same form; 0-0, any port, is everybody's.

    Raises:
        OSError: there are fewer ports than workers.
    """
    first, last = map(int, ports.split("-"))
    if not last:
        return ports
    total = last - first + 1
    if total < count:
        raise OSError(f"PORTRAIT_MEDIA_PORTS={ports!r}: {total} ports for {count} workers")
    return f"{first + total * index // count}-{first + total * (index + 1) // count - 1}"


class _Worker:
    """One worker process after the other, in one place."""

    def __init__(self, orders: Orders, board: Board) -> None:
        self._orders, self._board = orders, board
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._restarts = 0

    async def start(self) -> dict[str, Any]:
        """Start a process and wait until it accepts work; what it announced.

        Raises:
            WorkerFailed: it ended before.
        """
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "portrait.worker",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, pass_fds=[self._orders.http_socket],
            process_group=0,  # what the terminal interrupts is the supervisor, which tells the workers
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        orders = asdict(self._orders) | {"restarts": self._restarts}
        with contextlib.suppress(ConnectionError):  # it is gone already: its status says why
            self._process.stdin.write(json.dumps(orders, default=_plain).encode() + b"\n")
            await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        if not line:
            raise WorkerFailed(await self._process.wait())
        announced: dict[str, Any] = json.loads(line)
        return announced

    async def keep(self) -> None:
        """Start it again whenever it ends. Runs until cancelled."""
        pause = FIRST_PAUSE
        while True:
            assert self._process is not None
            began = time.monotonic()
            status = await self._process.wait()
            self._board.forget(self._orders.index)
            if self._stopping:
                return
            if time.monotonic() - began >= STEADY_SECONDS:
                pause = FIRST_PAUSE
            logger.error(
                "worker %d: %s; its sessions are lost, it starts again in %g s",
                self._orders.index, describe(status), pause,
            )  # fmt: skip
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)
            self._restarts += 1
            try:
                await self.start()
            except WorkerFailed:
                continue
            logger.info("worker %d: accepts work again", self._orders.index)

    def kill_if_silent(self) -> None:
        """End it when its event loop has not moved for long; `keep` does the rest."""
        alive_at = self._board.rows[self._orders.index].alive_at
        if alive_at and time.monotonic() - alive_at > SILENCE_SECONDS and self._process is not None:
            logger.error("worker %d: no sign of life for %g s, killed", self._orders.index, SILENCE_SECONDS)
            self._signal(signal.SIGKILL)

    async def stop(self, drain_seconds: float) -> int:
        """Let it drain and wait for its end; kill it when that takes too long. The status it ended with, if it ran."""
        self._stopping = True
        if self._process is None or self._process.returncode is not None:
            return 0
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(drain_seconds + STOP_SECONDS):
                status = await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            status = await self._process.wait()
        except asyncio.CancelledError:
            self._signal(signal.SIGKILL)
            raise
        if status:
            logger.error("worker %d: %s", self._orders.index, describe(status))
        return status

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


def _plain(value: Any) -> str:
    """A setting as JSON can carry it, secrets as they are."""
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def describe(status: int) -> str:
    """A process's end in words."""
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


@asynccontextmanager
async def _keeping(workers: list[_Worker], board: Board) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(worker.keep(), name="worker-keep") for worker in workers]
    tasks.append(asyncio.create_task(_watch(workers), name="worker-watch"))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _watch(workers: list[_Worker]) -> None:
    while True:
        await asyncio.sleep(1.0)
        for worker in workers:
            worker.kill_if_silent()


@contextmanager
def _folder(count: int) -> Iterator[Path]:
    """A folder nobody else may enter, for sockets and the board; gone at the end.

    A read-only container has no other place to write than /dev/shm, and a full disk has room for a folder but not for
    the board.
    """
    places = [os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("TMPDIR"), "/tmp", "/dev/shm"]
    folder = next(filter(None, (_make_folder(place, count) for place in places if place)), None)
    if folder is None:
        raise OSError("the workers need a folder to meet in; neither TMPDIR, /tmp nor /dev/shm can be written to")
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)


def _make_folder(place: str, count: int) -> Path | None:
    """A folder in `place` that can hold the board; None where there can be none."""
    with contextlib.suppress(OSError):
        folder = Path(tempfile.mkdtemp(prefix="portrait-", dir=place))
        try:
            Board(folder, count=count).close()
            return folder
        except OSError:
            rmtree(folder, ignore_errors=True)
    return None


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """One listening HTTP socket for all workers: a connection that waits is taken by whoever lives."""
    with _bound(settings.host, settings.http_port) as listening:
        listening.listen(128)
        listening.setblocking(False)
        yield listening


@contextmanager
def _reserved(settings: Settings) -> Iterator[int]:
    """The gRPC port, kept for the workers, which share it by SO_REUSEPORT as gRPC takes no socket of ours.

    It is tried without sharing first: otherwise two boxes on one machine would take each other's calls.
    """
    with _bound(settings.host, settings.grpc_port) as tried:
        port = tried.getsockname()[1]
    with _bound(settings.host, port, shared=True):
        yield port


@contextmanager
def _bound(host: str, port: int, shared: bool = False) -> Iterator[socket.socket]:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            bound.bind(address)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
        yield bound
