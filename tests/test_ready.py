"""A service that is ready is warm: no client reaches it before its model has run once."""

import asyncio
from asyncio import timeout
from socket import SOCK_STREAM

import aiohttp
import pytest

from portrait.server.app import run_service
from portrait.settings import Settings
from tests.fakes import FakeModel, Gate, only
from tests.ports import free_ports


async def reached(port: int) -> bool:
    """Whether a server listens."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


async def test_it_listens_after_an_inference_and_not_before(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, up, enough = Gate(), asyncio.Event(), asyncio.Event()
    monkeypatch.setattr("portrait.server.app.choose_models", lambda *_: only(FakeModel(gate)))
    ports = free_ports(2, SOCK_STREAM)
    fixed = settings.model_copy(update={"http_port": ports[0], "grpc_port": ports[1]})

    async def serve() -> None:
        async with run_service(fixed):
            up.set()
            await enough.wait()

    serving = asyncio.create_task(serve())
    waiting = asyncio.create_task(up.wait())
    try:
        async with timeout(60):
            await asyncio.to_thread(gate.entered.acquire, timeout=60)
            assert [await reached(port) for port in ports] == [False, False]
            assert not up.is_set()
            gate.let_through.release()
            await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{ports[0]}/readyz") as response:
            assert response.status == 200
    finally:
        enough.set()
        waiting.cancel()
        await serving
