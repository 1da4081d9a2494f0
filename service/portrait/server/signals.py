"""The signals that stop or change a running service, as something to await."""

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping

from portrait.errors import PortraitError
from portrait.logs import log_event

logger = logging.getLogger(__name__)

RELOAD, REPLACE = signal.SIGHUP, signal.SIGUSR2
"""Read settings and model again; replace the workers by fresh ones."""


class Signals:
    """The signals of this process, caught from construction on. Needs a running event loop.

    `stop` is set by SIGTERM or SIGINT; a second one does what Python does by default. RELOAD and REPLACE wait, once
    each, until `answer` runs: one that arrives while the service starts is not lost. In a terminal SIGHUP keeps its
    meaning, that the terminal has closed.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._asked = asyncio.Queue[signal.Signals]()
        self._waiting = set[signal.Signals]()
        in_terminal = sys.stdin is not None and sys.stdin.isatty()
        self._caught = [REPLACE] if in_terminal else [RELOAD, REPLACE]
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop, number)
        for number in self._caught:
            self._loop.add_signal_handler(number, self._ask, number)

    async def answer(self, answers: Mapping[signal.Signals, Callable[[], Awaitable[None]]]) -> None:
        """Do what each signal asks for, one at a time, until `stop`.

        A signal that arrives again meanwhile is answered once more. An answer that fails is logged; it is expected to
        have changed nothing.
        """
        tasks = [asyncio.create_task(self._answer(answers), name="signals"), asyncio.create_task(self.stop.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()  # it never returns: this raises
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for number in self._caught:  # ignored, not reset: either would kill a process that drains
                self._loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)

    async def _answer(self, answers: Mapping[signal.Signals, Callable[[], Awaitable[None]]]) -> None:
        while True:
            number = await self._asked.get()
            self._waiting.discard(number)
            log_event(logger, logging.INFO, "asked to change", reason=number.name)
            try:
                await answers[number]()
            except (PortraitError, OSError) as error:
                logger.error("nothing has changed: %s", error)
            except Exception:
                logger.exception("nothing has changed: the answer to %s failed unexpectedly", number.name)

    def _stop(self, number: signal.Signals) -> None:
        log_event(logger, logging.INFO, "stopping", reason=number.name)
        for each in (signal.SIGTERM, signal.SIGINT):
            self._loop.remove_signal_handler(each)
        self.stop.set()

    def _ask(self, number: signal.Signals) -> None:
        if number not in self._waiting:
            self._waiting.add(number)
            self._asked.put_nowait(number)
