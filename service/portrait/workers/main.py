"""`python -m portrait.workers.main`: one worker, as the supervisor starts it."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
from pathlib import Path

from portrait.errors import PortraitError
from portrait.logs import discard_unwritten, logging_to_stderr
from portrait.server.app import RunningService, run_service
from portrait.server.signals import Signals
from portrait.settings import Settings, make_settings
from portrait.workers.environment import exempt_from_collection, pin
from portrait.workers.process import SETTINGS_ERROR, WorkerConfig
from portrait.workers.shared_state import SharedState

logger = logging.getLogger(__name__)

LONGEST_LINE = 2**20
"""Bytes of a set of settings, at most; asyncio's default of 64 KB would end the worker."""


def main() -> int:
    """Serve until told to stop; returns the exit status."""
    # Unbuffered: a buffer would take the next line too, which is a reload, out of reach of the event loop.
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as lines:
        config = WorkerConfig(**json.loads(lines.readline()))
    try:
        settings = make_settings(config.settings)  # checked again: a file may have gone since
        with logging_to_stderr(settings.log_level, settings.log_format):
            if settings.pin_workers:
                pin(config.place, config.count)
            asyncio.run(_serve(config, settings))
    except (PortraitError, OSError) as error:
        print(f"portrait: {error}", file=sys.stderr)
        return SETTINGS_ERROR if isinstance(error, PortraitError) else 1
    finally:
        discard_unwritten()
    return 0


async def _serve(config: WorkerConfig, settings: Settings) -> None:
    signals = Signals()
    shared = SharedState(Path(config.folder), config.index, config.count)
    listening = socket.socket(fileno=config.http_socket)
    with contextlib.closing(shared), listening:
        async with run_service(settings, shared, listening, config.restarts) as service:
            exempt_from_collection()
            os.write(sys.stdout.fileno(), json.dumps({"model": service.models.default}).encode() + b"\n")
            await _reload_until(signals.stop, service)


async def _reload_until(stop: asyncio.Event, service: RunningService) -> None:
    """Reload with each line of settings, until a signal stops it or the supervisor has ended without one."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    waiting = [asyncio.create_task(stop.wait()), asyncio.create_task(_reload(reader, service))]
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if waiting[1] in done:
            waiting[1].result()
            logger.error("the supervisor has ended: stopping")
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        transport.close()


async def _reload(reader: asyncio.StreamReader, service: RunningService) -> None:
    while line := await reader.readline():
        try:
            await service.reload(make_settings(json.loads(line)))
        except (PortraitError, OSError) as error:
            logger.error("nothing has changed: %s", error)
        except Exception:
            logger.exception("nothing has changed: the reload failed unexpectedly")


if __name__ == "__main__":
    sys.exit(main())
