"""The door of the HTTP server: how many stand in it, for how long, and how much they carry.

aiohttp bounds none of it: a client that sends its request a byte a minute, or none at all, would hold a descriptor for
ever, and every client at once could have a whole body in memory.
"""

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import time
from asyncio import timeout
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from portrait.logs import tell_failure

MOST = 1000
"""Connections open at once. One more takes the place of the one that has waited longest, if one waits."""

WAIT_SECONDS = 30.0
"""How long a connection may be open without a whole request head."""

KEPT_SECONDS = 75.0
"""How long it may be after a request: longer than proxies keep theirs (nginx: 60 s), so that it is they who close."""

HANDSHAKE_SECONDS = 10.0

BODY_SECONDS = 60.0
"""How long a body may take: 32 MB at 4.5 Mbit/s."""

ANSWER_SECONDS = 120.0
"""How long a client may take to fetch an answer besides: the page's largest file at 25 KB/s."""

SMALL = 64 * 1024
"""Bytes of a body that is read whoever else sends one; larger ones, and those of no known length, take a place."""

PLACES = 8
"""Large bodies in memory at once; further ones wait in the kernel's buffers."""

PLACE_SECONDS = 10.0
"""How long a large body waits for its place."""

LAST_SECONDS = 1.0
"""How long a door that closes waits for the first request of those it has taken."""

FULL_PAUSE = 0.1
"""Seconds until the next try when the process has no descriptor left."""


def is_not_the_clients_doing(record: logging.LogRecord) -> bool:
    """Whether a record of aiohttp's tells of something else than a request that is none: anybody may send those."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


class Door:
    """Takes the connections of an aiohttp server. Opened by `opened`."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        self._server: web.Server | None = None
        self._greeted: dict[asyncio.Task[None], float] = {}
        """TLS handshakes under way, the oldest first."""
        self._waiting: dict[web.RequestHandler, float] = {}
        """Connections without a request under way, and when each has waited for too long."""
        self._new: set[web.RequestHandler] = set()
        """Connections without a request so far."""
        self._places = asyncio.Semaphore(PLACES)

    def __len__(self) -> int:
        assert self._server is not None
        return len(self._greeted) + len(self._server.connections)

    async def take(self, server: web.Server, listening: socket.socket) -> None:
        """Give the server every connection that comes. Runs until cancelled."""
        self._server = server
        while True:
            # Not the loop's sock_accept: cancelled in the turn in which one comes, it would lose it.
            await _readable(listening)
            try:
                connection, _ = listening.accept()
                connection.setblocking(False)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._send_one_away()
                    await asyncio.sleep(FULL_PAUSE)
                continue  # else it went away before it was taken, or another worker has taken it
            if len(self) >= MOST and not self._send_one_away():
                connection.close()
                continue
            task = asyncio.create_task(self._greet(connection), name="http-greet")
            self._greeted[task] = time.monotonic()
            task.add_done_callback(lambda done: self._greeted.pop(done, None))

    async def watch(self) -> None:
        """Close the connections that have waited for too long. Runs until cancelled."""
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            open_now = set(self._server.connections) if self._server is not None else set()
            self._waiting = {one: until for one, until in self._waiting.items() if one in open_now}
            self._new &= open_now
            for one in [one for one, until in self._waiting.items() if until < now]:
                self._close(one)

    async def close(self) -> None:
        """Let those who have been taken ask, and cut the handshakes that are under way after that."""
        until = time.monotonic() + LAST_SECONDS
        while (self._greeted or self._silent()) and time.monotonic() < until:  # noqa: ASYNC110  many events, once
            await asyncio.sleep(0.01)
        for task in list(self._greeted):
            task.cancel()
        await asyncio.gather(*self._greeted, return_exceptions=True)

    def _silent(self) -> set[web.RequestHandler]:
        """Those who have been taken and have asked nothing."""
        return self._new.intersection(self._server.connections) if self._server is not None else set()

    def keeper(self) -> Middleware:
        """Knows who has a request under way."""

        @web.middleware
        async def keep(request: web.Request, handler: Handler) -> web.StreamResponse:
            self._waiting.pop(request.protocol, None)
            self._new.discard(request.protocol)
            until = 0.0
            try:
                response = await handler(request)
                # A body that is not sent yet is sent after this: its reader is not idle.
                until = 0.0 if response.prepared else ANSWER_SECONDS
                return response
            finally:
                if request.transport is not None:
                    self._waiting[request.protocol] = time.monotonic() + KEPT_SECONDS + until

        return keep

    def porter(self) -> Middleware:
        """Lets so many large bodies in at once, and none for longer than BODY_SECONDS."""

        @web.middleware
        async def carry(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not request.body_exists:
                return await handler(request)
            length = request.content_length
            async with contextlib.AsyncExitStack() as stack:
                if length is None or length > SMALL:
                    await stack.enter_async_context(self._place())
                late = web.HTTPRequestTimeout(text=f"the body took more than {BODY_SECONDS:g} s")
                timer = asyncio.get_running_loop().call_later(BODY_SECONDS, _give_up, request, late)
                stack.callback(timer.cancel)
                return await handler(request)

        return carry

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        try:
            async with timeout(PLACE_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise web.HTTPServiceUnavailable(
                text=f"{PLACES} large requests are being read", headers={"Retry-After": "5"}
            ) from None
        try:
            yield
        finally:
            self._places.release()

    async def _greet(self, connection: socket.socket) -> None:
        assert self._server is not None
        handshake = HANDSHAKE_SECONDS if self._tls else None
        loop = asyncio.get_running_loop()
        try:
            _, protocol = await loop.connect_accepted_socket(
                self._server, connection, ssl=self._tls, ssl_handshake_timeout=handshake
            )
            self._waiting[protocol] = time.monotonic() + WAIT_SECONDS
            self._new.add(protocol)
        except OSError:  # among them ssl.SSLError and a handshake that took too long
            connection.close()
        except BaseException:
            connection.close()
            raise

    def _send_one_away(self) -> bool:
        """Close whoever has waited longest without a request; whether there was anybody."""
        if self._waiting:
            self._close(min(self._waiting, key=lambda one: self._waiting[one]))
            return True
        for task in self._greeted:
            task.cancel()
            return True
        return False

    def _close(self, one: web.RequestHandler) -> None:
        self._waiting.pop(one, None)
        if one.transport is not None:
            one.transport.abort()


async def _readable(listening: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(listening, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(listening)


def _give_up(request: web.Request, error: Exception) -> None:
    if not request.content.is_eof():
        request.content.set_exception(error)


def listen(host: str, port: int) -> Sequence[socket.socket]:
    """Listening sockets on every address of `host`, on one port, any for 0.

    Raises:
        OSError: one cannot be bound; says which.
    """
    found: list[socket.socket] = []
    for family, kind, protocol, _, address in dict.fromkeys(
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    ):
        one = socket.socket(family, kind, protocol)
        found.append(one)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((address[0], found[0].getsockname()[1] if len(found) > 1 else port, *address[2:]))
            one.listen(128)
            one.setblocking(False)
        except OSError as error:
            for each in found:
                each.close()
            raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    return found


@asynccontextmanager
async def opened(door: Door, server: web.Server, sockets: Sequence[socket.socket]) -> AsyncIterator[None]:
    """Take connections of the sockets for the length of the block, and close them at its end."""
    tasks = [asyncio.create_task(door.take(server, one), name="http-door") for one in sockets]
    tasks.append(asyncio.create_task(door.watch(), name="http-watch"))
    for task in tasks:
        task.add_done_callback(tell_failure)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await door.close()
        for one in sockets:
            one.close()
