"""ConnectionLimiter: how many connections the HTTP server has, how long each may wait, and how much is in memory.

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
from http import HTTPStatus

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from portrait.errors import Refused
from portrait.logs import tell_failure
from portrait.transports.http.errors import problem, problem_of

MOST_CONNECTIONS = 1000
"""Connections open at once. One more replaces the connection that has waited longest for a request, if any waits."""

HEAD_SECONDS = 30.0
"""How long a connection may be open without a whole request head."""

KEEP_ALIVE_SECONDS = 75.0
"""How long it may be idle after a request: longer than proxies keep theirs (nginx: 60 s), so that the proxy closes."""

HANDSHAKE_SECONDS = 10.0

BODY_SECONDS = 60.0
"""How long a body may take: 32 MB at 4.5 Mbit/s."""

ANSWER_SECONDS = 120.0
"""How long a client may take to read a response: the page's largest file at 25 KB/s."""

SMALL_BODY = 64 * 1024
"""Bytes of a body that is always read; larger ones, and those of unknown length, count as large."""

LARGE_BODIES = 8
"""Large bodies in memory at once; further ones wait in the kernel's buffers."""

LARGE_BODY_WAIT_SECONDS = 10.0
"""How long a large body may wait for that."""

RETRY_AFTER = 5.0
"""Seconds a refused client is told to wait."""

CLOSING_SECONDS = 1.0
"""How long a server that closes waits for the first request of connections it has accepted."""

NO_DESCRIPTOR_PAUSE = 0.1
"""Seconds until the next try when the process has no descriptor left."""


def is_server_fault(record: logging.LogRecord) -> bool:
    """Whether a log record of aiohttp's is about anything but a malformed request, which anyone can send."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError)


class ProblemRequestHandler(web.RequestHandler):
    """A connection whose malformed requests are answered in the form of all other errors."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that has come to no handler. Closes the connection, as aiohttp's own does."""
        plain = super().handle_error(request, status, exc, message)
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            response = problem(status, "INTERNAL", "internal error")
        else:
            detail = (message or "").strip().partition("\n")[0]
            response = problem(status, HTTPStatus(status).name, f"got a request that is not HTTP: {detail[:200]}")
        if plain.keep_alive is False:
            response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer; also where aiohttp refuses a request before any middleware, as for an unknown Expect."""
        if isinstance(resp, web.HTTPException) and resp.status >= HTTPStatus.BAD_REQUEST:
            resp = problem_of(resp)
        return await super().finish_response(request, resp, start_time)


async def send(request: web.Request, response: web.Response) -> None:
    """Send a whole response, for handlers that have something to release afterwards.

    A client that takes more than ANSWER_SECONDS to read it is disconnected.
    """
    try:
        async with timeout(ANSWER_SECONDS):
            await response.prepare(request)
            await response.write_eof()
    except ConnectionError:
        pass  # the client has gone
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()


class ConnectionLimiter:
    """Accepts the connections of an aiohttp server. Opened by `serving`."""

    def __init__(self, tls: ssl.SSLContext | None, protocol_logger: logging.Logger) -> None:
        self._tls, self._logger = tls, protocol_logger
        self._server: web.Server | None = None
        self._handshakes: dict[asyncio.Task[None], float] = {}
        """TLS handshakes that have not ended, the oldest first."""
        self._waiting: dict[web.RequestHandler, float] = {}
        """Connections that wait for a request, and when each has waited for too long."""
        self._new: set[web.RequestHandler] = set()
        """Connections without a request so far."""
        self._large_bodies = asyncio.Semaphore(LARGE_BODIES)

    def __len__(self) -> int:
        assert self._server is not None
        return len(self._handshakes) + len(self._server.connections)

    async def accept(self, server: web.Server, listening: socket.socket) -> None:
        """Give the server every connection that comes. Runs until cancelled."""
        self._server = server
        while True:
            # Not the loop's sock_accept: cancelled in the step in which a connection comes, it would lose that one.
            await _readable(listening)
            try:
                connection, _ = listening.accept()
                connection.setblocking(False)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._drop_longest_waiting()
                    await asyncio.sleep(NO_DESCRIPTOR_PAUSE)
                continue  # else the client closed it before, or another worker has accepted it
            if len(self) >= MOST_CONNECTIONS and not self._drop_longest_waiting():
                connection.close()
                continue
            task = asyncio.create_task(self._open(connection), name="http-handshake")
            self._handshakes[task] = time.monotonic()
            task.add_done_callback(lambda done: self._handshakes.pop(done, None))

    async def close_overdue(self) -> None:
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
        """Wait a moment for the first request of accepted connections, then cut the handshakes that have not ended."""
        until = time.monotonic() + CLOSING_SECONDS
        while (self._handshakes or self._silent()) and time.monotonic() < until:  # noqa: ASYNC110  many events, once
            await asyncio.sleep(0.01)
        for task in list(self._handshakes):
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)

    def _silent(self) -> set[web.RequestHandler]:
        """Connections that have been accepted and have sent no request."""
        return self._new.intersection(self._server.connections) if self._server is not None else set()

    def track_requests(self) -> Middleware:
        """A middleware that notes which connections have a request in work."""

        @web.middleware
        async def track(request: web.Request, handler: Handler) -> web.StreamResponse:
            self._waiting.pop(request.protocol, None)
            self._new.discard(request.protocol)
            until = 0.0
            try:
                response = await handler(request)
                # A response that is not sent yet is sent after this: its reader is not idle.
                until = 0.0 if response.prepared else ANSWER_SECONDS
                return response
            finally:
                if request.transport is not None:
                    self._waiting[request.protocol] = time.monotonic() + KEEP_ALIVE_SECONDS + until

        return track

    def limit_bodies(self) -> Middleware:
        """A middleware that bounds the large bodies in memory, and the time each body may take."""

        @web.middleware
        async def limit(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not request.body_exists:
                return await handler(request)
            length = request.content_length
            async with contextlib.AsyncExitStack() as stack:
                if length is None or length > SMALL_BODY:
                    await stack.enter_async_context(self._large_body())
                late = web.HTTPRequestTimeout(text=f"the body took longer than {BODY_SECONDS:g} s")
                timer = asyncio.get_running_loop().call_later(BODY_SECONDS, _stop_reading, request, late)
                stack.callback(timer.cancel)
                return await handler(request)

        return limit

    @asynccontextmanager
    async def _large_body(self) -> AsyncIterator[None]:
        try:
            async with timeout(LARGE_BODY_WAIT_SECONDS):
                await self._large_bodies.acquire()
        except TimeoutError:
            raise Refused(f"{LARGE_BODIES} large requests are in memory; try again later", RETRY_AFTER) from None
        try:
            yield
        finally:
            self._large_bodies.release()

    async def _open(self, connection: socket.socket) -> None:
        assert self._server is not None
        server, logger = self._server, self._logger
        handshake = HANDSHAKE_SECONDS if self._tls else None
        loop = asyncio.get_running_loop()
        try:
            _, protocol = await loop.connect_accepted_socket(
                lambda: ProblemRequestHandler(server, loop=loop, access_log=None, logger=logger),  # type: ignore[arg-type]
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=handshake,
            )
            self._waiting[protocol] = time.monotonic() + HEAD_SECONDS
            self._new.add(protocol)
        except OSError:  # such as ssl.SSLError and a handshake that took too long
            connection.close()
        except BaseException:
            connection.close()
            raise

    def _drop_longest_waiting(self) -> bool:
        """Close the connection that has waited longest for a request; gives whether there was one."""
        if self._waiting:
            self._close(min(self._waiting, key=lambda one: self._waiting[one]))
            return True
        for task in self._handshakes:
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


def _stop_reading(request: web.Request, error: Exception) -> None:
    if not request.content.is_eof():
        request.content.set_exception(error)


def listen(host: str, port: int, *, shared: bool = False) -> Sequence[socket.socket]:
    """Listening sockets on every address of `host`, on one port; 0: any free one.

    With `shared` several processes may listen on it, each for its share of the connections (SO_REUSEPORT).

    Raises:
        OSError: one cannot be bound; names it.
    """
    found: list[socket.socket] = []
    for family, kind, protocol, _, address in dict.fromkeys(
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    ):
        one = socket.socket(family, kind, protocol)
        found.append(one)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
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
async def serving(
    limiter: ConnectionLimiter, server: web.Server, sockets: Sequence[socket.socket]
) -> AsyncIterator[None]:
    """Accept connections on the sockets for the length of the block, and close the sockets at its end."""
    tasks = [asyncio.create_task(limiter.accept(server, one), name="http-accept") for one in sockets]
    tasks.append(asyncio.create_task(limiter.close_overdue(), name="http-overdue"))
    for task in tasks:
        task.add_done_callback(tell_failure)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await limiter.close()
        for one in sockets:
            one.close()
