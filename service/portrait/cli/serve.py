"""`portrait serve`: the service in this process, or a supervisor with several worker processes."""

import argparse
import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from portrait.admission.cgroup import cpu_budget
from portrait.errors import BadSettings
from portrait.logs import log_event, logging_to_stderr
from portrait.server.signals import RELOAD, REPLACE, Signals
from portrait.settings import Settings, load_settings
from portrait.workers.environment import default_workers, exempt_from_collection
from portrait.workers.supervisor import WorkerFailed, run_workers

logger = logging.getLogger(__name__)


def serve(parsed: argparse.Namespace, settings: Settings) -> int:
    """Serve until SIGTERM; returns the exit status: 128 and the number for a worker that a signal ended."""
    count = settings.workers or default_workers(cpu_budget())

    def reread() -> Settings:
        changed = load_settings(vars(parsed))
        log_event(logger, logging.INFO, "settings", **changed.model_dump(mode="json"))
        return changed

    with logging_to_stderr(settings.log_level, settings.log_format):
        log_event(logger, logging.INFO, "settings", **settings.model_dump(mode="json"))
        run = _serve_alone if count == 1 else partial(_serve_with_workers, count=count)
        try:
            asyncio.run(_until_stopped(partial(run, settings, reread, parsed.json)))
        except WorkerFailed as error:
            logger.error("the box ends: %s", error)
            return error.status if error.status > 0 else 128 - error.status
    return 0


async def _until_stopped(serving: Callable[[Signals, asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Serve until a signal stops it. One that arrives during the start cancels that, however long it would take."""
    signals, started = Signals(), asyncio.Event()
    task = asyncio.create_task(serving(signals, started))
    stopping = asyncio.create_task(signals.stop.wait())
    try:
        await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not started.is_set() and not task.done():
            task.cancel()
        await asyncio.wait((task,))
    finally:
        stopping.cancel()
        task.cancel()
    if not task.cancelled():
        task.result()


async def _serve_alone(
    settings: Settings, reread: Callable[[], Settings], as_json: bool, signals: Signals, started: asyncio.Event
) -> None:
    from portrait.server.app import run_service  # with the native libraries, which a supervisor does not load

    async with run_service(settings) as service:
        exempt_from_collection()
        started.set()

        async def reload() -> None:
            await service.reload(reread())

        async def replace() -> None:
            raise BadSettings(
                f"{REPLACE.name} replaces workers, and there is one worker; expected PORTRAIT_WORKERS above 1"
            )

        _announce(settings, service.http_port, service.grpc_port, service.models.default, as_json)
        await signals.answer({RELOAD: reload, REPLACE: replace})


async def _serve_with_workers(
    settings: Settings,
    reread: Callable[[], Settings],
    as_json: bool,
    signals: Signals,
    started: asyncio.Event,
    count: int,
) -> None:
    async with run_workers(settings, count) as supervisor:
        started.set()

        async def reload() -> None:
            await supervisor.reload(reread())

        async def replace() -> None:
            await supervisor.replace(reread())

        _announce(settings, supervisor.http_port, supervisor.grpc_port, supervisor.model, as_json)
        await signals.answer({RELOAD: reload, REPLACE: replace})


def _announce(settings: Settings, http_port: int, grpc_port: int, model: str, as_json: bool) -> None:
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "https" if settings.encrypted else "http"
    page, grpc_address = f"{scheme}://{shown}:{http_port}/", f"{shown}:{grpc_port}"
    if as_json:
        print(json.dumps({"page": page, "grpc": grpc_address, "model": model}), flush=True)
    else:
        print(f"page {page}   gRPC {grpc_address}   model {model}", flush=True)
