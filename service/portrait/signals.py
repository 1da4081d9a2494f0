"""The signals that end a process, as something to wait for."""

import asyncio
import logging
import signal

from portrait.logs import log_event

logger = logging.getLogger(__name__)


def catch_signals() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets from now on. A second one is answered as Python does by itself."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def stopped(number: signal.Signals) -> None:
        log_event(logger, logging.INFO, "stopping", reason=number.name)
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped, number)
    return stop
