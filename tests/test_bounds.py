"""What a client without credentials can hold of the box is bounded, and freed: see docs/operate/threat-model.md."""

import asyncio
import contextlib
import json
import logging
import socket
import urllib.request
from asyncio import timeout
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest
from aiohttp import web

from portrait.image.backgrounds import Backgrounds
from portrait.server.app import RunningService
from portrait.settings import Settings
from portrait.transports.grpc import server as grpc_transport
from portrait.transports.grpc.config import GrpcConfig
from portrait.transports.grpc.server import GrpcServer
from portrait.transports.http import connection_limits as limits
from portrait.transports.http.config import HttpConfig
from portrait.transports.http.server import serve_http
from portrait.workers.ids import owner_of_id
from tests.boxes import serving, wait_for
from tests.calls import budget_of
from tests.credentials import Authority, authority, http_status, trusting
from tests.credentials import serving as serving_here
from tests.posts import problem_of

__all__ = ["authority"]  # a fixture

LARGE = b"x" * (2 * limits.SMALL_BODY)


class Answer(asyncio.Event):
    """Set when /slow shall answer; `let_in` counts the requests that have come as far as their handlers."""

    let_in = 0

    async def have_come(self, count: int) -> None:
        async with timeout(60):
            while self.let_in < count:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def box(**options: Any) -> AsyncIterator[tuple[int, Answer]]:
    """A server whose /slow answers when it is told to, and whose /body reads the whole of it."""
    answer = Answer()

    async def slow(_: web.Request) -> web.Response:
        answer.let_in += 1
        await answer.wait()
        return web.Response(text="done")

    async def body(request: web.Request) -> web.Response:
        answer.let_in += 1
        return web.Response(text=str(len(await request.read())))

    async def quick(_: web.Request) -> web.Response:
        return web.Response(text="here")

    routes = [web.get("/slow", slow), web.post("/body", body), web.get("/quick", quick)]
    async with serve_http(routes, HttpConfig("127.0.0.1", 0, 2**20, 10**6), **options) as port:
        yield port, answer


async def connected(stack: AsyncExitStack, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    stack.callback(writer.close)
    return reader, writer


def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the server has closed the connection, without having said anything."""
    return reader.at_eof() or reader.exception() is not None


async def gone(reader: asyncio.StreamReader) -> bool:
    """Whether the server closes the connection in time without having said anything."""
    try:
        async with timeout(60):
            return await reader.read() == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


async def test_a_head_that_never_ends_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_SECONDS", 1.0)
    async with box() as (port, answer), AsyncExitStack() as stack:
        silent, _ = await connected(stack, port)
        slow, writer = await connected(stack, port)

        async def drip() -> None:
            for byte in b"GET /quick HTTP/1.1\r\nX: " + b"y" * 10_000:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.1)

        dripping = asyncio.create_task(drip())
        asked, asking = await connected(stack, port)
        asking.write(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert await gone(silent)
        assert await gone(slow)
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        answer.set()  # who has asked is waited for
        assert (await asked.read()).endswith(b"done")


async def test_a_full_server_closes_connections_that_wait_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_CONNECTIONS", 4)
    monkeypatch.setattr(limits, "HEAD_SECONDS", 600.0)
    async with box() as (port, answer), AsyncExitStack() as stack:
        served, writer = await connected(stack, port)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        idle = [await connected(stack, port) for _ in range(40)]
        reader, writer = await connected(stack, port)
        writer.write(b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n")
        async with timeout(60):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        async with timeout(60):
            while sum(ended(one) for one, _ in idle) < len(idle) - 4:
                await asyncio.sleep(0.01)
        answer.set()
        assert (await served.read()).endswith(b"done")


async def test_a_server_full_of_served_connections_accepts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_CONNECTIONS", 3)
    monkeypatch.setattr(limits, "HEAD_SECONDS", 600.0)
    async with box() as (port, answer), AsyncExitStack() as stack:
        asked = []
        for _ in range(3):
            reader, writer = await connected(stack, port)
            writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            asked.append(reader)
        await answer.have_come(3)
        late, _ = await connected(stack, port)
        assert await gone(late)
        answer.set()
        assert all([(await reader.read()).endswith(b"done") for reader in asked])


async def test_a_body_that_never_ends_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_SECONDS", 1.0)
    async with box() as (port, _), AsyncExitStack() as stack:
        reader, writer = await connected(stack, port)
        writer.write(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        async with timeout(60):
            assert b"408" in await reader.readline()


async def test_a_bounded_number_of_large_bodies_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LARGE_BODIES", 2)
    monkeypatch.setattr(limits, "LARGE_BODY_WAIT_SECONDS", 1.0)
    head = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    async with box() as (port, answer), AsyncExitStack() as stack, aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{port}/body"
        slow = []
        for _ in range(2):
            reader, writer = await connected(stack, port)
            writer.write(head % len(LARGE) + LARGE[:-1])
            slow.append((reader, writer))
        await answer.have_come(2)
        async with http.post(url, data=LARGE) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "5")
        async with http.post(url, data=b"small") as response:
            assert await response.text() == "5"
        for reader, writer in slow:
            writer.write(LARGE[-1:])
            async with timeout(60):
                assert b"200" in await reader.readline()
        async with http.post(url, data=LARGE) as response:
            assert await response.text() == str(len(LARGE))


async def test_parts_without_end_are_refused_at_the_first_one_too_many(service: RunningService) -> None:
    """Each has a head and no body: no limit of bytes would ever be reached."""
    sent = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal sent
        for number in range(100_000):
            sent += 1
            yield b'--x\r\nContent-Disposition: form-data; name="mode%d"\r\n\r\n\r\n' % (number % 2)
            await asyncio.sleep(0)

    url = f"http://127.0.0.1:{service.http_port}/v1/segment"
    async with aiohttp.ClientSession() as http:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        async with http.post(url, data=parts(), headers=headers) as response:
            assert response.status == 400
        data = b'--x\r\nContent-Disposition: form-data; name="mode"\r\n\r\nblur\r\n' * 2 + b"--x--\r\n"
        async with http.post(url, data=data, headers=headers) as response:
            assert "mode: got the field twice" in (await response.json())["detail"]
    assert sent < 50_000


@pytest.mark.parametrize("path", ["/v1/segment?mode=mask&mode=blur", "/webrtc?mode=blur&mode=blur", "/whip/a?x=1&x=2"])
async def test_a_parameter_given_twice_is_refused(service: RunningService, path: str) -> None:
    """A guess at which one was meant could show the room that the other would have hidden."""
    url = f"http://127.0.0.1:{service.http_port}{path}"
    async with aiohttp.ClientSession() as http, http.post(url, data=b"") as response:
        assert "got the parameter twice, expected it once" in await problem_of(response, 400, "BAD_OPTION")


async def test_a_malformed_request_writes_no_line_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with box() as (port, _), AsyncExitStack() as stack:
            reader, writer = await connected(stack, port)
            writer.write(b"\x16\x03\x01 garbage\r\n\r\n")
            assert b"400" in await reader.readline()
    assert not [record for record in caplog.records if "protocol" in record.name]


async def test_grpc_bounds_its_connections_and_handshakes(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [("grpc.max_allowed_incoming_connections", 5), ("grpc.server_handshake_timeout_ms", 1000)]
    assert {name for name, _ in few} < {name for name, _ in grpc_transport.BOUND_OPTIONS}
    monkeypatch.setattr(grpc_transport, "BOUND_OPTIONS", few)
    config = GrpcConfig("127.0.0.1", 0, 10**6, 10**6, 10**6, idle_seconds=5)
    async with (
        budget_of(10**6) as budget,
        GrpcServer(config, service.sessions, Backgrounds(), budget) as server,
        AsyncExitStack() as stack,
    ):
        readers = [(await connected(stack, server.port))[0] for _ in range(12)]
        # Its greeting is SETTINGS; those that are one too many get none.
        greeted = [await asyncio.wait_for(read_some(reader), 60) for reader in readers]
        assert sum(map(bool, greeted)) == 5
        for reader in readers:
            async with timeout(60):
                while await read_some(reader):
                    pass
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            await asyncio.wait_for(channel.channel_ready(), 60)


async def read_some(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(4096)
    except ConnectionError:
        return b""


def test_an_id_of_any_length_belongs_to_no_worker() -> None:
    names = ("9" * 5000 + "-x", "0" * 5000 + "-x", "1-x")
    assert [owner_of_id(name, rows=2) for name in names] == [None, None, 1]


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def test_clients_without_credentials_cost_a_box_no_more_than_stated(tmp_path: Path) -> None:
    """Twice as many connections as there may be, on both ports, each with half a request."""
    tokens = tmp_path / "tokens"
    tokens.write_text("camera 0123456789abcdef\n")
    with serving("--tokens", str(tokens), "--workers", "1") as (process, told), contextlib.ExitStack() as crowd:
        address = told["page"].removeprefix("http://").rstrip("/")
        http_port, grpc_port = int(address.rpartition(":")[2]), int(told["grpc"].rpartition(":")[2])
        urllib.request.urlopen(told["page"] + "healthz").read()
        before, memory = descriptors(process.pid), resident(process.pid)
        for port, line in ((http_port, b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nX: "), (grpc_port, b"PRI * HTTP/2.0")):
            held = descriptors(process.pid)
            for _ in range(2 * limits.MOST_CONNECTIONS):
                one = crowd.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
                with contextlib.suppress(OSError):  # sent away already
                    one.send(line + b"y" * 4000)
            # Sooner than any of them has waited for too long.
            wait_for(lambda held=held: descriptors(process.pid) - held <= limits.MOST_CONNECTIONS + 25, 8)
        # Health is asked all the same.
        assert json.load(urllib.request.urlopen(told["page"] + "healthz", timeout=60)) == {"status": "alive"}
        most = descriptors(process.pid) - before
        grown = resident(process.pid) - memory
        print(f"{4 * limits.MOST_CONNECTIONS} connections: {most} descriptors and {grown / 2**20:.0f} MB more")
        assert grown < 150 * 2**20
        crowd.close()
        wait_for(lambda: descriptors(process.pid) <= before + 20, 60)


async def test_a_handshake_that_never_comes_is_cut(
    settings: Settings, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 2.0)
    monkeypatch.setattr(limits, "MOST_CONNECTIONS", 4)
    certificate, key = authority.issue(tmp_path, "server")
    async with serving_here(settings, tls_certificate=certificate, tls_key=key) as running, AsyncExitStack() as stack:
        silent = [(await connected(stack, running.http_port))[0] for _ in range(20)]
        assert await http_status(running, "/healthz", ssl=trusting(authority)) == 200  # it is let in meanwhile
        assert all([await gone(one) for one in silent])
