"""`python -m portrait.workers.main`: one worker, as the supervisor starts it.

Its configuration comes as the first line on standard input.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
from pathlib import Path

from portrait.errors import PortraitError
from portrait.logs import configure_logs, give_up_unwritten
from portrait.server.app import RunningService, run_service
from portrait.server.signals import catch_signals
from portrait.settings import Settings, make_settings
from portrait.workers.environment import pin
from portrait.workers.process import Orders
from portrait.workers.shared_state import SharedState

logger = logging.getLogger(__name__)


def main() -> int:
    """Serve until told to stop; the exit status."""
    orders = Orders(**json.loads(sys.stdin.buffer.readline()))
    try:
        settings = make_settings(orders.settings)  # which were good once: files may have gone since
        configure_logs(settings.log_level, settings.log_format)
        if settings.pin_workers:
            pin(orders.place, orders.count)
        asyncio.run(_serve(orders, settings))
    except (PortraitError, OSError) as error:
        print(f"portrait: {error}", file=sys.stderr)
        return 2 if isinstance(error, PortraitError) else 1
    finally:
        give_up_unwritten()
    return 0


async def _serve(orders: Orders, settings: Settings) -> None:
    stop = catch_signals()
    board = SharedState(Path(orders.folder), orders.index, orders.count)
    listening = socket.socket(fileno=orders.http_socket)
    with contextlib.closing(board), listening:
        async with run_service(settings, board, listening, orders.restarts) as running:
            os.write(sys.stdout.fileno(), json.dumps({"model": running.models.default}).encode() + b"\n")
            await _wait_for_the_end(stop, running)


async def _wait_for_the_end(stop: asyncio.Event, running: RunningService) -> None:
    """A signal, or the end of a supervisor that could not send one. Every line it writes until then is settings."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    waiting = [asyncio.create_task(stop.wait()), asyncio.create_task(_take_settings(reader, running))]
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if waiting[1] in done:
            waiting[1].result()
            logger.error("the supervisor is gone: stopping")
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        transport.close()


async def _take_settings(reader: asyncio.StreamReader, running: RunningService) -> None:
    """Reload with each line of settings, until there are no more lines."""
    while line := await reader.readline():
        try:
            await running.reload(make_settings(json.loads(line)))
        except (PortraitError, OSError) as error:
            logger.error("nothing has changed: %s", error)


if __name__ == "__main__":
    sys.exit(main())
