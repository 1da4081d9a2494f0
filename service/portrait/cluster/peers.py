"""Peers: the addresses of the other pods, as the headless Service's name resolves to them now."""

import asyncio
import logging
import socket
import time

from portrait.cluster.config import ClusterConfig, plain_address

logger = logging.getLogger(__name__)

FRESH_SECONDS = 2.0
"""How long an answer is used before the name is looked up again; cluster DNS keeps its own for 5 to 30 s."""

LOOKUP_SECONDS = 1.0
"""How long a look-up may take; after that the last answer is used."""

MOST_PEERS = 2000
"""Addresses that are used of an answer, at most."""


class Peers:
    """The other pods. A failed or slow look-up leaves the last answer in use."""

    def __init__(self, config: ClusterConfig) -> None:
        self._names, self._own = config.peers, config.address
        self._found: tuple[str, ...] = ()
        self._until = 0.0
        self._looking: asyncio.Task[None] | None = None

    async def addresses(self) -> tuple[str, ...]:
        """The addresses of the other pods, ready or not.

        One look-up serves all who ask meanwhile, and it is not cancelled: a resolver that hangs must not take thread
        after thread.
        """
        if self._looking is None and time.monotonic() >= self._until:
            self._looking = asyncio.create_task(self._look_up(), name="cluster-look-up")
        if self._looking is not None:
            await asyncio.wait([self._looking], timeout=LOOKUP_SECONDS)
        return self._found

    async def close(self) -> None:
        """Forget a look-up that is under way."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look_up(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            answers = [await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM) for name in self._names]
        except (OSError, UnicodeError) as error:
            logger.warning("the names of the cluster's pods cannot be looked up: %s", error)
        else:
            found = dict.fromkeys(plain_address(str(address[0])) for answer in answers for *_, address in answer)
            found.pop(self._own, None)
            self._found = tuple(found)[:MOST_PEERS]
        finally:
            self._until, self._looking = time.monotonic() + FRESH_SECONDS, None
