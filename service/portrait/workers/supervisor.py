"""The supervisor: starts the workers of a box, keeps them running and stops them. Loads no native library."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from portrait.logs import tell_failure
from portrait.settings import Settings
from portrait.workers.process import CHECK_SECONDS, Worker, WorkerConfig, WorkerFailed
from portrait.workers.rendezvous import listening_socket, reserved_port, shared_folder
from portrait.workers.shared_state import SharedState

__all__ = ["Supervisor", "WorkerFailed", "run_workers", "share"]

logger = logging.getLogger(__name__)

ADDRESSES = ("host", "http_port", "grpc_port", "workers")
"""Settings of the box as a whole, which cannot change while it runs."""


@asynccontextmanager
async def run_workers(settings: Settings, count: int) -> AsyncIterator["Supervisor"]:
    """Run `count` workers for the length of the block, each started again when it ends; drain them at its end.

    Raises:
        OSError: an address cannot be bound, or there is nowhere to put a folder.
        WorkerFailed: a worker did not start, or did not stop in time or with status 0.
    """
    with shared_folder(count) as folder, listening_socket(settings) as listening, reserved_port(settings) as grpc_port:
        shared = SharedState(folder, count=count)
        http_port = listening.getsockname()[1]
        supervisor = Supervisor(settings, shared, listening.fileno(), http_port, grpc_port)
        try:
            await supervisor.start()
            shared.mark_started()
            async with supervisor.keeping():
                yield supervisor
        finally:
            statuses = await supervisor.stop()
            shared.close()
        if any(statuses):
            raise WorkerFailed(1)


def share(ports: str, index: int, count: int) -> str:
    """Return a worker's part of the port range FIRST-LAST, in the same form; 0-0, any port, and "" stay as they are.

    Raises:
        OSError: there are fewer ports than workers.
    """
    first, last = map(int, (ports or "0-0").split("-"))
    if not last:
        return ports
    total = last - first + 1
    if total < count:
        raise OSError(f"PORTRAIT_MEDIA_PORTS={ports!r}: got {total} ports, expected at least {count}, one per worker")
    return f"{first + total * index // count}-{first + total * (index + 1) // count - 1}"


class Supervisor:
    """The workers of a box, one in each place. Opened by `run_workers`; every worker has come up then."""

    def __init__(
        self, settings: Settings, shared: SharedState, http_socket: int, http_port: int, grpc_port: int
    ) -> None:
        self.http_port, self.grpc_port = http_port, grpc_port
        self.model = ""
        """Name of the default model, as the first worker announced it."""
        self._settings, self._shared, self._http_socket = settings, shared, http_socket
        self._workers = [self._worker(settings, place, place) for place in range(shared.count)]
        self._spare = shared.count
        """The row of the shared state that no worker has."""
        self._keepers: dict[Worker, asyncio.Task[None]] = {}
        self._leaving: asyncio.Task[int] | None = None

    async def start(self) -> None:
        """Start all workers.

        The first one starts alone: the others read what it has measured of the machine, and what is wrong with the
        settings is said once.

        Raises:
            WorkerFailed: one did not start.
        """
        announced = await self._workers[0].first_start()
        await asyncio.gather(*(worker.first_start() for worker in self._workers[1:]))
        self.model = str(announced["model"])

    @asynccontextmanager
    async def keeping(self) -> AsyncIterator[None]:
        """For the length of the block, start each worker again when it ends or hangs."""
        for worker in self._workers:
            self._keep(worker)
        check = asyncio.create_task(self._check(), name="worker-check")
        check.add_done_callback(tell_failure)
        try:
            yield
        finally:
            tasks = [check, *self._keepers.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self) -> list[int]:
        """Let all workers drain; returns their exit statuses."""
        leaving = [self._leaving] if self._leaving is not None else []
        ends = (worker.stop(self._settings.drain_seconds) for worker in self._workers)
        return await asyncio.gather(*ends, *leaving)

    async def reload(self, settings: Settings) -> None:
        """Send every worker new settings; each applies what it can without ending a stream.

        Raises:
            OSError: there are fewer media ports than workers; nothing has changed then.
        """
        settings = self._with_addresses_kept(settings)
        workers = enumerate(self._workers)
        documents = [self._own(settings, place, worker.index).model_dump() for place, worker in workers]
        for worker, document in zip(self._workers, documents, strict=True):
            await worker.reload(document)
        self._settings = settings

    async def replace(self, settings: Settings) -> None:
        """Replace every worker by a fresh one with these settings, one after the other.

        Each successor accepts work before its predecessor drains, so the box never has fewer workers. When one does
        not start, the remaining workers stay.

        Raises:
            OSError: there are fewer media ports than workers; nothing has changed then.
        """
        settings, drain_seconds = self._with_addresses_kept(settings), self._settings.drain_seconds
        for place, old in enumerate(list(self._workers)):
            fresh = self._worker(settings, place, self._spare)
            try:
                await fresh.start()
            except BaseException as error:
                await fresh.stop(0.0)
                self._shared.forget(fresh.index)
                if not isinstance(error, WorkerFailed):
                    raise
                logger.error("worker %d stays: its successor did not come up: %s", old.index, error)
                return
            logger.info("worker %d: drains, worker %d has taken its place", old.index, fresh.index)
            self._workers[place] = fresh
            self._keep(fresh)
            # A task: the end of the box cancels this method, and waits for the drain that has begun.
            self._leaving = asyncio.create_task(old.stop(drain_seconds), name="worker-leaving")
            await asyncio.shield(self._leaving)
            await self._keepers.pop(old)
            self._leaving, self._spare = None, old.index
        self._settings = settings

    def _with_addresses_kept(self, settings: Settings) -> Settings:
        return settings.model_copy(update={name: getattr(self._settings, name) for name in ADDRESSES})

    def _worker(self, settings: Settings, place: int, index: int) -> Worker:
        folder, count = str(self._shared.folder), self._shared.count
        own = self._own(settings, place, index).model_dump()
        return Worker(WorkerConfig(own, folder, index, place, count, self._http_socket, 0), self._shared)

    def _own(self, settings: Settings, place: int, index: int) -> Settings:
        """Return one worker's settings: its media port or its share of them, and the gRPC port that all share.

        While a worker drains, its successor has another index, and so another port.
        """
        ports = share(settings.media_ports, place, self._shared.count)
        port = settings.media_port + index if settings.media_port else 0
        return settings.model_copy(update={"grpc_port": self.grpc_port, "media_port": port, "media_ports": ports})

    def _keep(self, worker: Worker) -> None:
        task = self._keepers[worker] = asyncio.create_task(worker.keep(), name="worker-keep")
        task.add_done_callback(tell_failure)

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            for worker in self._workers:
                worker.kill_if_silent()
