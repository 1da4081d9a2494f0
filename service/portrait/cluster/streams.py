"""Streams: which pod publishes a stream, found by asking all of them; bounded, and remembered for a second or two."""

import asyncio
import logging
import time
from asyncio import Semaphore, timeout
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

import aiohttp

from portrait.cluster.peers import Peers
from portrait.errors import TooManyRequests

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 0.5
"""How long one pod may take to answer; a pod that has vanished from the network answers never."""

SKIP_SECONDS = 5.0
"""How long a pod that did not answer is not asked again."""

FOUND_SECONDS, MISSED_SECONDS = 2.0, 0.5
"""How long an answer is used: that a pod publishes the stream, and that none does."""

MOST_NAMES = 1000
"""Names that are remembered, at most."""

MOST_SEARCHES = 64
"""Names that are looked for at once; one more is refused."""

MOST_QUESTIONS = 64
"""Questions without an answer, of all searches together; further ones wait."""


@dataclass(frozen=True, slots=True)
class Found:
    """A pod that publishes a stream."""

    address: str
    draining: bool
    """Whether it stops: a stream of the same name may be published elsewhere already."""


Ask: TypeAlias = Callable[[str, str], Awaitable[bool | None]]
"""Asks the pod of an address about a stream: whether it drains; None: it does not publish it."""


class Streams:
    """Finds the pods of streams. `ask` raises aiohttp.ClientError when a pod cannot be asked."""

    def __init__(self, peers: Peers, ask: Ask) -> None:
        self._peers, self._ask = peers, ask
        self._known: dict[str, tuple[Found | None, float]] = {}
        self._searches: dict[str, asyncio.Task[Found | None]] = {}
        self._silent: dict[str, float] = {}
        """Pods that did not answer, and until when they are not asked."""
        self._questions = Semaphore(MOST_QUESTIONS)

    async def find(self, name: str) -> Found | None:
        """The other pod that publishes a stream, one that does not drain if there is any; None when none does.

        Raises:
            TooManyRequests: too many names are being looked for.
        """
        found, until = self._known.get(name, (None, 0.0))
        if time.monotonic() < until:
            return found
        search = self._searches.get(name)
        if search is None:
            if len(self._searches) >= MOST_SEARCHES:
                raise TooManyRequests(f"{MOST_SEARCHES} streams are being looked for in the cluster", 1.0)
            search = self._searches[name] = asyncio.create_task(self._search(name), name="cluster-search")
            search.add_done_callback(lambda _: self._searches.pop(name))
        return await asyncio.shield(search)

    def forget(self, name: str, address: str | None = None) -> None:
        """Look for a stream anew next time; with an address, without the pod that has it, for it did not answer."""
        self._known.pop(name, None)
        if address is not None:
            self._silent[address] = time.monotonic() + SKIP_SECONDS

    async def close(self) -> None:
        """End the searches that are under way."""
        for search in list(self._searches.values()):
            search.cancel()
        await asyncio.gather(*self._searches.values(), return_exceptions=True)

    async def _search(self, name: str) -> Found | None:
        now = time.monotonic()
        self._silent = {address: until for address, until in self._silent.items() if until > now}
        addresses = [address for address in await self._peers.addresses() if address not in self._silent]
        questions = [asyncio.create_task(self._question(address, name)) for address in addresses]
        found: Found | None = None
        try:
            for question in asyncio.as_completed(questions):
                if (one := await question) is not None:
                    found = one
                    if not one.draining:
                        break
        finally:
            for each in questions:
                each.cancel()
            await asyncio.gather(*questions, return_exceptions=True)
        self._remember(name, found)
        return found

    async def _question(self, address: str, name: str) -> Found | None:
        async with self._questions:
            try:
                async with timeout(ANSWER_SECONDS):
                    draining = await self._ask(address, name)
            except (aiohttp.ClientError, TimeoutError) as error:
                logger.warning("pod %s does not say which streams it has: %s", address, type(error).__name__)
                self._silent[address] = time.monotonic() + SKIP_SECONDS
                return None
        return None if draining is None else Found(address, draining)

    def _remember(self, name: str, found: Found | None) -> None:
        self._known.pop(name, None)
        if len(self._known) >= MOST_NAMES:
            del self._known[next(iter(self._known))]
        self._known[name] = found, time.monotonic() + (FOUND_SECONDS if found else MISSED_SECONDS)
