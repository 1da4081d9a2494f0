"""One worker process as the supervisor sees it.

Workers are started by `exec`, not forked: gRPC and OpenCV keep threads that do not survive a fork. A worker reads its
configuration from standard input, which stays open; end of file tells it that the supervisor has gone.
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
"""Seconds before a worker that ended is started again; doubled each time, until it has worked for STEADY_SECONDS."""

STEADY_SECONDS = 60.0
"""After this long a worker's next restart waits FIRST_PAUSE again."""

CHECK_SECONDS, SILENCE_SECONDS = 1.0, 20.0
"""How often a worker is checked, and how long its event loop may stand still before the process is killed."""

START_SECONDS = 120.0
"""How long a worker may take to accept work before it is killed: some thirty times what two idle cores need. Doubled
each time that was too short, since a box may be that slow."""

STARTS = 3
"""How often a worker is tried while the box starts, when a signal or its timeout ends it."""

STOP_SECONDS = 20.0
"""How long a worker may take to stop beyond the drain before it is killed."""

SETTINGS_ERROR = 2
"""Exit status of a worker whose settings cannot be used."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """The first line on a worker's standard input, as JSON. Each further line is a set of settings to reload."""

    settings: dict[str, Any]
    folder: str
    index: int
    """Its row of the shared state, which no other process has."""
    place: int
    """Which share of cores and ports it has; its successor gets the same one."""
    count: int
    http_socket: int
    """Descriptor of the listening socket that all workers share."""
    restarts: int


class WorkerFailed(Exception):
    """A worker did not start or did not stop properly; the reason has been logged. `status` is as Popen has it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"a worker process {describe(status)}")
        self.status = status


class Worker:
    """A worker of the box: one process after the other, with one row of the shared state."""

    def __init__(self, config: WorkerConfig, shared: SharedState) -> None:
        self._config, self._shared = config, shared
        self._usable = config.settings
        """The settings with which a process last came up."""
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = self._accepts = False
        self._restarts = 0
        self._patience = START_SECONDS
        self._alive_at, self._silent_checks = 0.0, 0
        """When it last wrote its row, and how many checks in a row have found no later time."""

    @property
    def index(self) -> int:
        """Its row of the shared state."""
        return self._config.index

    async def first_start(self) -> dict[str, Any]:
        """Start it while the box starts; returns what it announced.

        A process that ended by itself has a reason that another try would not change. One that a signal ended, or that
        hung, is started again.

        Raises:
            WorkerFailed: it ended by itself, or STARTS times by a signal or its timeout.
        """
        for left in reversed(range(STARTS)):
            try:
                return await self.start()
            except WorkerFailed as error:
                if error.status >= 0 or not left:
                    raise
                logger.warning("worker %d: starts again in %g s", self.index, FIRST_PAUSE)
                self._forget()
                await asyncio.sleep(FIRST_PAUSE)
        raise AssertionError

    async def start(self) -> dict[str, Any]:
        """Start a process and wait until it accepts work; returns what it announced.

        Raises:
            WorkerFailed: it ended before, or was killed because it took too long.
        """
        self._accepts = False
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "portrait.workers.main",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, pass_fds=[self._config.http_socket],
            start_new_session=True,  # Ctrl-C in a terminal reaches the supervisor alone, which tells the workers
        )  # fmt: skip
        if self._stopping:  # `stop` came while the process was made, and saw only the one before
            self._signal(signal.SIGKILL)
        config = self._config
        await self._send(asdict(config) | {"restarts": self._restarts})
        line = await self._announcement(process)
        if not line:
            status = await process.wait()
            if not self._stopping:
                logger.error("worker %d: %s before it accepted work", self.index, describe(status))
            raise WorkerFailed(status)
        announced: dict[str, Any] = json.loads(line)
        self._accepts, self._usable, self._patience = True, config.settings, START_SECONDS
        return announced

    async def _announcement(self, process: asyncio.subprocess.Process) -> bytes:
        """Wait for its first line; nothing when it ends before, or is killed because it takes too long.

        Checks are counted, not seconds, as in `kill_if_silent`.
        """
        assert process.stdout is not None
        reading = asyncio.create_task(process.stdout.readline(), name="worker-start")
        try:
            for _ in range(round(self._patience / CHECK_SECONDS)):
                if (await asyncio.wait({reading}, timeout=CHECK_SECONDS))[0]:
                    return reading.result()
            logger.error("worker %d: accepts no work after %g s, killed", self.index, self._patience)
            self._patience *= 2
            self._signal(signal.SIGKILL)
            return await reading
        finally:
            reading.cancel()

    async def reload(self, settings: dict[str, Any]) -> None:
        """Send it new settings; a process that starts later gets them as well."""
        self._config = replace(self._config, settings=settings)
        if self._process is not None and self._process.returncode is None:
            await self._send(settings)

    async def keep(self) -> None:
        """Start it again whenever it ends, until `stop`."""
        pause = FIRST_PAUSE
        while True:
            assert self._process is not None
            began = time.monotonic()
            status = await self._process.wait()
            if self._accepts and not self._stopping:
                logger.error("worker %d: %s; its sessions are lost", self.index, describe(status))
            self._accepts = False
            self._forget()
            if time.monotonic() - began >= STEADY_SECONDS:
                pause = FIRST_PAUSE
            if not self._stopping:
                logger.info("worker %d: starts again in %g s", self.index, pause)
                await asyncio.sleep(pause)
            if self._stopping:
                return
            pause = min(LONGEST_PAUSE, 2 * pause)
            self._restarts += 1
            try:
                await self.start()
            except WorkerFailed as error:
                if error.status == SETTINGS_ERROR and self._config.settings != self._usable:
                    logger.error("worker %d: the reloaded settings cannot be used; takes the earlier ones", self.index)
                    self._config = replace(self._config, settings=self._usable)
            except Exception as error:
                # A machine short of memory or processes may recover, and no other error may end this loop either: the
                # worker would be missing for good.
                unforeseen = not isinstance(error, OSError)
                logger.error("worker %d: cannot be started: %s", self.index, error, exc_info=unforeseen)
            else:
                logger.info("worker %d: accepts work again", self.index)

    def kill_if_silent(self) -> None:
        """Kill it when its event loop has stood still for SILENCE_SECONDS. To be called every CHECK_SECONDS.

        Checks are counted, not seconds: while the whole box stands still, as a paused container does, there are none.
        """
        alive_at = self._shared.rows[self.index].alive_at
        self._silent_checks = self._silent_checks + 1 if alive_at == self._alive_at else 0
        self._alive_at = alive_at
        if alive_at and self._silent_checks * CHECK_SECONDS > SILENCE_SECONDS and self._process is not None:
            logger.error("worker %d: its event loop has stood still for %g s, killed", self.index, SILENCE_SECONDS)
            self._signal(signal.SIGKILL)

    async def stop(self, drain_seconds: float) -> int:
        """Let it drain and wait for its end; kill it when that takes too long, or when it is still starting.

        Returns its exit status; 0 when it did not run or was still starting.
        """
        self._stopping = True
        if self._process is None or self._process.returncode is not None:
            return 0
        if not self._accepts:
            self._signal(signal.SIGKILL)
            await self._process.wait()
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
        if status:
            logger.error("worker %d: %s", self.index, describe(status))
        return status

    def _forget(self) -> None:
        try:
            self._shared.forget(self.index)
        except OSError as error:  # a cleaner of /tmp has removed the folder, for example
            logger.error("worker %d: what it left behind cannot be removed: %s", self.index, error)

    async def _send(self, document: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):  # it has ended, and its status says why
            self._process.stdin.write(json.dumps(document, default=_plain).encode() + b"\n")
            await self._process.stdin.drain()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


def _plain(value: Any) -> str:
    """Turn a setting into JSON, secrets included."""
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def describe(status: int) -> str:
    """Say how a process ended, by its status as Popen has it."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:  # Python names only the first and the last real-time signal
        name = f"SIGRTMIN+{-status - signal.SIGRTMIN}" if -status > signal.SIGRTMIN else f"signal {-status}"
    return f"killed by {name}"
