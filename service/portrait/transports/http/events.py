"""GET /v1/events: presence of all streams, or of one, as Server-Sent Events (HTML standard, section 9.2)."""

import asyncio
import json
import time
from asyncio import timeout
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from typing import Any, TypeAlias

from aiohttp import web

from portrait.security import Security
from portrait.sessions.presence_feed import Listener, PresenceFeed
from portrait.transports.http.forwarding import INTERNAL

KEEP_ALIVE_SECONDS = 15.0
"""After so long without an event a comment is sent: proxies close connections that are silent, and a listener that has
vanished is noticed."""

CHECK_SECONDS = 1.0
"""How often it is looked whether a listener has closed its connection."""

WRITE_SECONDS = 10.0
"""How long a listener may take none of what is sent before it is disconnected."""

HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}

Relay: TypeAlias = Callable[[Listener], Awaitable[None]]
"""Puts the events of another worker or pod into a listener, until cancelled."""

RELAYS = web.RequestKey("relays", list[Relay])
"""Where a request carries those of the other workers, if there are any."""


class EventRoutes:
    """The handler of the route. `security` ends listeners whose credentials expire."""

    def __init__(self, feed: PresenceFeed, security: Security) -> None:
        self._feed, self._security = feed, security

    @property
    def routes(self) -> list[web.RouteDef]:
        """The routes to add to the HTTP server."""
        return [web.get("/v1/events", self._get, allow_head=False)]

    async def _get(self, request: web.Request) -> web.StreamResponse:
        internal, stream = request.get(INTERNAL, False), request.query.get("stream")
        with self._feed.listen("worker" if internal else "sse", stream, limited=not internal) as listener:
            response = web.StreamResponse(headers=HEADERS)
            await response.prepare(request)
            relays = [asyncio.create_task(relay(listener), name="events-relay") for relay in request.get(RELAYS, ())]
            token = request.headers.get("Authorization")
            # Another worker or pod brings none: the one that has the client's connection checks it.
            held = nullcontext() if internal else self._security.holding(token, lambda _: listener.close())
            try:
                async with held:
                    await _send(request, response, listener)
            except (ConnectionError, TimeoutError):
                if request.transport is not None:
                    request.transport.abort()
            finally:
                for each in relays:
                    each.cancel()
                await asyncio.gather(*relays, return_exceptions=True)
        return response


async def _send(request: web.Request, response: web.StreamResponse, listener: Listener) -> None:
    """Send events until the listener is closed.

    Raises:
        ConnectionError, TimeoutError: the client has gone, or takes nothing.
    """
    await _write(response, b": presence\n\n")
    written = time.monotonic()
    while not listener.closed and request.transport is not None and not request.transport.is_closing():
        event = None
        with suppress(TimeoutError):
            async with timeout(CHECK_SECONDS):
                event = await listener.get()
        if event is not None:
            await _write(response, encode(event.document()))
            listener.count("sent")
        elif time.monotonic() - written >= KEEP_ALIVE_SECONDS:
            await _write(response, b": still here\n\n")
        else:
            continue
        written = time.monotonic()


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with timeout(WRITE_SECONDS):
        await response.write(data)


def encode(document: dict[str, Any]) -> bytes:
    """One event of the stream."""
    return f"event: presence\ndata: {json.dumps(document)}\n\n".encode()
