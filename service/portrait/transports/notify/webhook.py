"""Webhook: posts each event of presence to an address of the operator's, signed, and again until it is taken.

Signatures follow Standard Webhooks (https://github.com/standard-webhooks/standard-webhooks, spec 1.0): the receiver
checks that HMAC-SHA256 of "ID.TIMESTAMP.BODY" is in the header `webhook-signature`, and that the time is recent.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import random
import secrets
import time
from http import HTTPStatus

import aiohttp

from portrait.logs import log_event
from portrait.sessions.presence_feed import Listener, PresenceEvent, PresenceFeed

logger = logging.getLogger(__name__)

TIMEOUT = aiohttp.ClientTimeout(total=10.0)

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds to the second attempt, and the longest between two: each wait is twice the one before."""

OLDEST = 600.0
"""Seconds after which an event is given up."""


class Webhook:
    """Posts the events of a feed to one address, one after the other; `run` is its whole life."""

    def __init__(self, address: str, secret: bytes, feed: PresenceFeed) -> None:
        self._address, self._secret, self._feed = address, secret, feed
        self._listener: Listener | None = None
        self._failing = self._delivering = False

    @property
    def idle(self) -> bool:
        """Whether everything has been sent, or cannot be."""
        return self._failing or self._listener is None or (self._listener.empty and not self._delivering)

    async def run(self) -> None:
        """Post events until cancelled. While the receiver is dead, of each stream only the newest event waits."""
        with self._feed.listen("webhook") as self._listener:
            async with aiohttp.ClientSession(timeout=TIMEOUT, cookie_jar=aiohttp.DummyCookieJar()) as http:
                while (event := await self._listener.get()) is not None:
                    self._delivering = True
                    await self._deliver(http, event, self._listener)
                    self._delivering = False

    async def _deliver(self, http: aiohttp.ClientSession, event: PresenceEvent, listener: Listener) -> None:
        name, document = f"msg_{secrets.token_hex(12)}", event.document()
        body = json.dumps({"type": "presence", "timestamp": document["at"], "data": document}).encode()
        wait, began = FIRST_WAIT, time.monotonic()
        while (problem := await self._post(http, name, body)) is not None:
            self._note(problem)
            if time.monotonic() - began > OLDEST:
                listener.count("failed")
                return
            # At random, so that boxes which lost their receiver together do not all come back in one moment.
            await asyncio.sleep(wait * random.uniform(0.75, 1.25))
            wait = min(2 * wait, LONGEST_WAIT)
        listener.count("sent")
        self._note(None)

    async def _post(self, http: aiohttp.ClientSession, name: str, body: bytes) -> str | None:
        """Why an attempt failed; None where it did not."""
        headers = {"Content-Type": "application/json", **sign(self._secret, name, int(time.time()), body)}
        try:
            async with http.post(self._address, data=body, headers=headers, allow_redirects=False) as response:
                return None if response.status < HTTPStatus.MULTIPLE_CHOICES else f"status {response.status}"
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return type(error).__name__  # its message may hold the address, and that credentials

    def _note(self, problem: str | None) -> None:
        """Log when deliveries begin to fail, and when they work again."""
        if problem is not None and not self._failing:
            log_event(logger, logging.WARNING, "webhook fails", reason=problem)
        elif problem is None and self._failing:
            log_event(logger, logging.INFO, "webhook works again")
        self._failing = problem is not None


def sign(secret: bytes, name: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers that identify and sign a message, sent at `timestamp` seconds of the epoch."""
    signed = hmac.new(secret, f"{name}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    signature = base64.b64encode(signed).decode()
    return {"webhook-id": name, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,{signature}"}
