"""The signals that end or change a running service, as something to wait for."""

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping

from portrait.errors import PortraitError
from portrait.logs import log_event

logger = logging.getLogger(__name__)

RELOAD, REPLACE = signal.SIGHUP, signal.SIGUSR2
"""Read settings and model anew; replace the workers by fresh ones."""


def catch_signals() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets from now on. A second one is answered as Python does by itself.

    RELOAD and REPLACE, which would end a process that does not know them, are passed over until somebody answers them.
    """
    _pass_over(_changing())
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def stopped(number: signal.Signals) -> None:
        log_event(logger, logging.INFO, "stopping", reason=number.name)
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped, number)
    return stop


async def answer_signals(
    stop: asyncio.Event, answers: Mapping[signal.Signals, Callable[[], Awaitable[None]]], announce: Callable[[], None]
) -> None:
    """Until `stop`, do what each signal asks for, one at a time; one that comes meanwhile is answered once more.

    From `announce` on none is passed over: whoever has been told of the service may change it.
    What goes wrong is logged and changes nothing. In a terminal SIGHUP still means that the terminal is gone.
    """
    loop, asked = asyncio.get_running_loop(), asyncio.Queue[signal.Signals](len(answers))
    waiting = set[signal.Signals]()

    def ask(number: signal.Signals) -> None:
        if number not in waiting:
            waiting.add(number)
            asked.put_nowait(number)

    async def answer() -> None:
        while True:
            number = await asked.get()
            waiting.discard(number)
            log_event(logger, logging.INFO, "asked to change", reason=number.name)
            try:
                await answers[number]()
            except (PortraitError, OSError) as error:
                logger.error("nothing has changed: %s", error)

    caught = [number for number in answers if number in _changing()]
    for number in caught:
        loop.add_signal_handler(number, ask, number)
    announce()
    tasks = [asyncio.create_task(answer(), name="signals"), asyncio.create_task(stop.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()  # it never returns: this raises
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for number in caught:
            loop.remove_signal_handler(number)
        _pass_over(caught)


def _changing() -> list[signal.Signals]:
    """The signals that change a service: in a terminal SIGHUP says that it is gone."""
    in_terminal = sys.stdin is not None and sys.stdin.isatty()
    return [REPLACE] if in_terminal else [RELOAD, REPLACE]


def _pass_over(numbers: Iterable[signal.Signals]) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
