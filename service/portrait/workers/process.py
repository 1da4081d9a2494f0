"""A worker process as its supervisor sees it.

Workers are started anew, not forked: gRPC and OpenCV keep threads that a fork would cut. Each gets its orders on
standard input, which stays open: its end tells a worker that the supervisor is gone.
"""

import asyncio
import contextlib
import json
import logging
import signal
import sys
import time
from asyncio import timeout
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import SecretStr

from portrait.workers.shared_state import SharedState

logger = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds before a worker that ended is started again; doubled each time it ends without having worked for a while."""

STEADY_SECONDS = 60.0
"""A worker that has worked for so long has earned the first pause again."""

LOOK_SECONDS, SILENCE_SECONDS = 1.0, 20.0
"""How often a worker is looked at; one whose event loop shows no sign of life for so long hangs, and is killed."""

STOP_SECONDS = 20.0
"""How long workers may take to stop beyond their drain; whoever is left is killed."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What a worker is told first on its standard input, as one line of JSON. Further lines are settings to reload."""

    settings: dict[str, Any]
    folder: str
    index: int
    """Its row of the board, which is nobody else's."""
    place: int
    """Its share of cores and ports, which a successor takes over."""
    count: int
    http_socket: int
    """Descriptor of the listening socket, which all workers share."""
    restarts: int


class WorkerFailed(Exception):
    """A worker did not come up, or did not stop as it should. `status` is the process's; it has said why."""

    def __init__(self, status: int) -> None:
        super().__init__(f"a worker ended with status {status}")
        self.status = status


class Worker:
    """One worker process after the other, with one row of the board."""

    def __init__(self, orders: Orders, board: SharedState) -> None:
        self._orders, self._board = orders, board
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = self._accepts = False
        self._restarts = 0
        self._heard, self._silent_looks = 0.0, 0
        """Its last sign of life, and how many looks in a row have found no later one."""

    @property
    def index(self) -> int:
        """Its row of the board."""
        return self._orders.index

    async def start(self) -> dict[str, Any]:
        """Start a process and wait until it accepts work; what it announced.

        Raises:
            WorkerFailed: it ended before.
        """
        self._accepts = False
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "portrait.workers.main",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, pass_fds=[self._orders.http_socket],
            start_new_session=True,  # what the terminal interrupts is the supervisor, which tells the workers
        )  # fmt: skip
        assert self._process.stdout is not None
        orders = asdict(self._orders) | {"restarts": self._restarts}
        await self._say(orders)
        line = await self._process.stdout.readline()
        if not line:
            raise WorkerFailed(await self._process.wait())
        announced: dict[str, Any] = json.loads(line)
        self._accepts = True
        return announced

    async def tell(self, settings: dict[str, Any]) -> None:
        """Hand it new settings; a process that is started later has them as well."""
        self._orders = replace(self._orders, settings=settings)
        if self._process is not None and self._process.returncode is None:
            await self._say(settings)

    async def keep(self) -> None:
        """Start it again whenever it ends. Runs until cancelled."""
        pause = FIRST_PAUSE
        while True:
            assert self._process is not None
            began = time.monotonic()
            status = await self._process.wait()
            self._board.forget(self.index)
            if not self._stopping:
                if time.monotonic() - began >= STEADY_SECONDS:
                    pause = FIRST_PAUSE
                logger.error(
                    "worker %d: %s; its sessions are lost, it starts again in %g s",
                    self.index, describe(status), pause,
                )  # fmt: skip
                await asyncio.sleep(pause)
            if self._stopping:
                return
            pause = min(LONGEST_PAUSE, 2 * pause)
            self._restarts += 1
            try:
                await self.start()
            except WorkerFailed:
                continue
            except Exception as error:
                # A machine short of memory or processes may have them again. Nor may anything else end this loop:
                # nobody waits for it, and the worker would be missed by its clients alone.
                unforeseen = not isinstance(error, OSError)
                logger.error("worker %d: cannot be started: %s", self.index, error, exc_info=unforeseen)
                continue
            logger.info("worker %d: accepts work again", self.index)

    def kill_if_silent(self) -> None:
        """End it when its event loop has not moved for long; `keep` does the rest. To be called every LOOK_SECONDS.

        Looks are counted, not seconds: while the whole box stands still, as a paused container does, nobody looks.
        """
        alive_at = self._board.rows[self.index].alive_at
        self._silent_looks = self._silent_looks + 1 if alive_at == self._heard else 0
        self._heard = alive_at
        if alive_at and self._silent_looks * LOOK_SECONDS > SILENCE_SECONDS and self._process is not None:
            logger.error("worker %d: no sign of life for %g s, killed", self.index, SILENCE_SECONDS)
            self._signal(signal.SIGKILL)

    async def stop(self, drain_seconds: float) -> int:
        """Let it drain and wait for its end; kill it when that takes too long.

        The status it ended with; 0 for one that did not run, or was still coming up and knew no signals.
        """
        self._stopping = True
        if self._process is None or self._process.returncode is not None:
            return 0
        self._signal(signal.SIGTERM)
        try:
            async with timeout(drain_seconds + STOP_SECONDS):
                status = await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            status = await self._process.wait()
        except asyncio.CancelledError:
            self._signal(signal.SIGKILL)
            raise
        if status == -signal.SIGTERM and not self._accepts:
            return 0
        if status:
            logger.error("worker %d: %s", self._orders.index, describe(status))
        return status

    async def _say(self, document: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):  # it is gone already: its status says why
            self._process.stdin.write(json.dumps(document, default=_plain).encode() + b"\n")
            await self._process.stdin.drain()

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
