"""The supervisor: keeps the workers of a box running. No native library of theirs is ever loaded here."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from portrait.logs import tell_failure
from portrait.settings import Settings
from portrait.workers.process import LOOK_SECONDS, Orders, Worker, WorkerFailed
from portrait.workers.rendezvous import listening_socket, meeting_folder, reserved_port
from portrait.workers.shared_state import SharedState

__all__ = ["Box", "Fleet", "WorkerFailed", "run_workers", "share"]

logger = logging.getLogger(__name__)

ADDRESSES = ("host", "http_port", "grpc_port", "workers")
"""Settings that are the box's and not a worker's."""


@dataclass(frozen=True, slots=True)
class Box:
    """A box whose workers all accept work."""

    http_port: int
    grpc_port: int
    model: str
    fleet: "Fleet"


@asynccontextmanager
async def run_workers(settings: Settings, count: int) -> AsyncIterator[Box]:
    """`count` workers for the length of the block, each started again when it ends; drains them at its end.

    The first one starts alone: what it measures of the machine the others read, and what is wrong with the settings is
    said once.

    Raises:
        OSError: an address cannot be bound, or there is nowhere to put a folder.
        WorkerFailed: a worker did not come up, or did not stop in time or in order.
    """
    with meeting_folder(count) as folder, listening_socket(settings) as listening, reserved_port(settings) as grpc_port:
        board = SharedState(folder, count=count)
        fleet = Fleet(settings, board, listening.fileno(), grpc_port)
        try:
            model = await fleet.start()
            board.mark_started()
            async with fleet.keeping():
                yield Box(listening.getsockname()[1], grpc_port, model, fleet)
        finally:
            ends = await fleet.stop()
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


class Fleet:
    """The workers of a box, one in each place; the table of their successions. Opened by `run_workers`."""

    def __init__(self, settings: Settings, board: SharedState, http_socket: int, grpc_port: int) -> None:
        self._settings, self._board = settings, board
        self._http_socket, self._grpc_port = http_socket, grpc_port
        self._workers = [self._worker(settings, place, place) for place in range(board.count)]
        self._spare = board.count
        """The row of the board that nobody has."""
        self._keepers: dict[Worker, asyncio.Task[None]] = {}
        self._leaving: asyncio.Task[int] | None = None

    async def start(self) -> str:
        """Start them all; the name of the default model.

        Raises:
            WorkerFailed: one did not come up.
        """
        announced = await self._workers[0].start()
        await asyncio.gather(*(worker.start() for worker in self._workers[1:]))
        return str(announced["model"])

    @asynccontextmanager
    async def keeping(self) -> AsyncIterator[None]:
        """For the length of the block, whoever ends is started again."""
        for worker in self._workers:
            self._keep(worker)
        watch = asyncio.create_task(self._watch(), name="worker-watch")
        watch.add_done_callback(tell_failure)
        try:
            yield
        finally:
            tasks = [watch, *self._keepers.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self) -> list[int]:
        """Let them drain; the status each has ended with."""
        leaving = [self._leaving] if self._leaving is not None else []
        ends = (worker.stop(self._settings.drain_seconds) for worker in self._workers)
        return await asyncio.gather(*ends, *leaving)

    async def reload(self, settings: Settings) -> None:
        """Hand every worker new settings; each takes what it can without ending a stream."""
        settings = self._kept(settings)
        for place, worker in enumerate(self._workers):
            await worker.tell(self._own(settings, place).model_dump())
        self._settings = settings

    async def replace(self, settings: Settings) -> None:
        """Let every worker make way for a fresh one with these settings, one after the other.

        Each successor accepts work before its predecessor drains, so there is no moment with less room. When one does
        not come up, the others stay as they are.

        Raises:
            OSError: there are fewer media ports than workers; nothing has changed then.
        """
        settings, drain_seconds = self._kept(settings), self._settings.drain_seconds
        for place, old in enumerate(list(self._workers)):
            fresh = self._worker(settings, place, self._spare)
            try:
                await fresh.start()
            except BaseException as error:
                await fresh.stop(0.0)
                if not isinstance(error, WorkerFailed):
                    raise
                logger.error("worker %d stays: its successor did not come up: %s", old.index, error)
                return
            logger.info("worker %d: drains, worker %d has taken its place", old.index, fresh.index)
            self._workers[place] = fresh
            self._keep(fresh)
            # A task: the end of the box, which cancels this, waits for the drain that has begun.
            self._leaving = asyncio.create_task(old.stop(drain_seconds), name="worker-leaving")
            await asyncio.shield(self._leaving)
            await self._keepers.pop(old)
            self._leaving, self._spare = None, old.index
        self._settings = settings

    def _kept(self, settings: Settings) -> Settings:
        """Settings with the addresses that are in use: they cannot change while it runs."""
        return settings.model_copy(update={name: getattr(self._settings, name) for name in ADDRESSES})

    def _worker(self, settings: Settings, place: int, index: int) -> Worker:
        folder, count = str(self._board.folder), self._board.count
        own = self._own(settings, place).model_dump()
        return Worker(Orders(own, folder, index, place, count, self._http_socket, 0), self._board)

    def _own(self, settings: Settings, place: int) -> Settings:
        """The settings of one place: its share of the media ports, and the gRPC port that all share."""
        ports = share(settings.media_ports, place, self._board.count)
        return settings.model_copy(update={"grpc_port": self._grpc_port, "media_ports": ports})

    def _keep(self, worker: Worker) -> None:
        self._keepers[worker] = asyncio.create_task(worker.keep(), name="worker-keep")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for worker in self._workers:
                worker.kill_if_silent()
