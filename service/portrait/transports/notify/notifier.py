"""Starts what sends events of presence elsewhere."""

import asyncio
from asyncio import timeout
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from portrait.logs import tell_failure
from portrait.sessions.presence_feed import PresenceFeed
from portrait.transports.notify.config import NotifyConfig
from portrait.transports.notify.mqtt import Mqtt
from portrait.transports.notify.webhook import Webhook

LAST_WORD_SECONDS = 2.0
"""How long the end of the service waits until the ends of its streams are told."""


@asynccontextmanager
async def notifying(config: NotifyConfig, feed: PresenceFeed, worker: int) -> AsyncIterator[None]:
    """Send events where the operator wants them, for the length of the block.

    Raises:
        BadSettings: a library is not installed.
    """
    senders: list[Webhook | Mqtt] = []
    if config.webhook:
        senders.append(Webhook(config.webhook, config.secret, feed))
    if config.broker is not None:
        senders.append(Mqtt(config.broker, feed, worker))
    tasks = [asyncio.create_task(sender.run(), name="notify") for sender in senders]
    for task in tasks:
        task.add_done_callback(tell_failure)
    try:
        yield
    finally:
        with suppress(TimeoutError):
            async with timeout(LAST_WORD_SECONDS):
                while not all(sender.idle for sender in senders):  # noqa: ASYNC110  several of them, once
                    await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
