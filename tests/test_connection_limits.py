"""The HTTP server closes: a connection that it has accepted is answered first."""

import asyncio
import logging
import socket
from asyncio import timeout
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from portrait.transports.http import connection_limits as limits
from tests.test_bounds import box


@asynccontextmanager
async def serving_nothing() -> AsyncIterator[web.Server]:
    """A server without routes and without limits."""
    runner = web.AppRunner(web.Application(), handle_signals=False)
    await runner.setup()
    assert runner.server is not None
    yield runner.server
    await runner.cleanup()


async def test_an_accepted_connection_is_answered_though_the_server_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    limiters: list[Any] = []

    class Watched(limits.ConnectionLimiter):
        """Says that it closes."""

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.closes = asyncio.Event()
            limiters.append(self)

        async def close(self) -> None:
            self.closes.set()
            await super().close()

    async def ask_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        await limiters[0].closes.wait()
        await asyncio.sleep(0.05)  # nothing of it has come when the server is told to stop
        writer.write(b"GET /quick HTTP/1.1\r\nHost: box\r\n\r\n")
        answer = await reader.readline()
        writer.close()
        return answer

    monkeypatch.setattr(limits, "CLOSING_SECONDS", 20.0)
    monkeypatch.setattr("portrait.transports.http.server.ConnectionLimiter", Watched)
    async with box() as (port, _):
        asking = asyncio.create_task(ask_late(*await asyncio.open_connection("127.0.0.1", port)))
        async with timeout(60):
            while not limiters[0]:
                await asyncio.sleep(0.01)
    assert (await asking).startswith(b"HTTP/1.1 200")


async def test_a_connection_that_comes_as_the_server_is_told_to_close_is_not_lost() -> None:
    taking: list[asyncio.Task[None]] = []

    class Telling(socket.socket):
        """Tells the server to close in the moment in which a connection comes."""

        def accept(self) -> tuple[socket.socket, Any]:
            come = super().accept()
            taking[0].cancel()
            return come

    async with serving_nothing() as server:
        with Telling() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            listening.setblocking(False)
            one = limits.ConnectionLimiter(None, logging.getLogger("test"))
            taking.append(asyncio.create_task(one.accept(server, listening)))
            for _ in range(3):
                await asyncio.sleep(0)  # it has begun to wait
            with socket.create_connection(listening.getsockname()):
                await asyncio.wait(taking)
                async with timeout(60):
                    while not server.connections:
                        await asyncio.sleep(0.01)
