"""EventChannel: the data channel on which a client is told what happens to its session or to the stream it watches."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from aiortc import RTCDataChannel

from portrait.core.presence import Presence
from portrait.sessions.presence_feed import presence_document

LABEL = "events"
"""Of the channel, which the client opens."""

PRESENCE_SECONDS = 0.5
"""How often a client is told at most where the person is; that somebody has come or left it is told at once."""

MOST_BUFFERED = 8192
"""Bytes waiting for the network from which on presence is not told."""


class EventChannel:
    """The channel of one connection. Until the client has opened it, and once it is closed, nothing is sent."""

    def __init__(self, count: Callable[[str], None]) -> None:
        """`count` is told of each event of presence that it was "sent" or "dropped"."""
        self._count = count
        self._channel: RTCDataChannel | None = None
        self.opened = asyncio.Event()
        self._told: Presence | None = None
        self._told_at = 0.0

    def take(self, channel: RTCDataChannel) -> None:
        """Keep the channel if it is the one for events; close any other."""
        if channel.label == LABEL and self._channel is None:
            self._channel = channel
            self.opened.set()
        else:
            channel.close()

    def send(self, **event: Any) -> bool:
        """Send an event. Returns whether the client listens."""
        if self._channel is None or self._channel.readyState != "open":
            return False
        self._channel.send(json.dumps(event))
        return True

    def tell_presence(self, presence: Presence | None) -> None:
        """Tell the client that a person has come or left, and now and then where they are. None: it is not known."""
        before, now = self._told, time.monotonic()
        if self._channel is None or presence is None or presence == before:
            return
        changed = before is None or presence.present != before.present
        if not changed and now - self._told_at < PRESENCE_SECONDS:
            return
        if self._channel.bufferedAmount > MOST_BUFFERED:
            self._count("dropped")
        elif self.send(presence=presence_document(presence)):
            self._told, self._told_at = presence, now
            self._count("sent")
