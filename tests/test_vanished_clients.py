"""Clients that vanish: killed, they say nothing."""

import asyncio
import json
import signal
import sys
from asyncio import timeout
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiortc import RTCPeerConnection

from portrait.sessions.registry import Sessions
from portrait.transports.webrtc import connection
from tests.fakes import FakeModel, full_mask
from tests.people import clip
from tests.rtc import SIZE, Camera, fake_service, viewer
from tests.whip import publisher

pytestmark = pytest.mark.usefixtures("no_sockets_left", "patient_ice")


@pytest.fixture
def patient_ice(monkeypatch: pytest.MonkeyPatch) -> None:
    """ICE, which would notice after half a minute, waits forever: only the service itself can notice."""
    monkeypatch.setattr("aioice.ice.CONSENT_FAILURES", 10**6)


@asynccontextmanager
async def client(url: str, path: str) -> AsyncIterator[Process]:
    """A client in a process of its own, killed at the end whatever it does."""
    command = (sys.executable, "-m", "tests.rtc_client", url, "--path", path, "--frames", "100000")
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def first_picture(process: Process) -> None:
    assert process.stdout is not None
    async with timeout(60):
        assert json.loads(await process.stdout.readline())["event"] == "first"


async def none_left(sessions: Sessions) -> None:
    async with timeout(60):
        while len(sessions):
            await asyncio.sleep(0.05)


async def test_a_client_that_vanishes_gives_its_place_back() -> None:
    async with fake_service(FakeModel(full_mask)) as (url, sessions), client(url, "/webrtc") as one:
        await first_picture(one)
        [row] = sessions.describe()
        session = sessions[row["id"]]
        one.send_signal(signal.SIGKILL)
        async with timeout(60):
            assert await session.wait_ended() == f"nothing arrived for {connection.SILENT_SECONDS:g} s"
        await none_left(sessions)


async def test_a_publisher_that_vanishes_gives_its_name_back() -> None:
    async with fake_service(FakeModel(full_mask)) as (url, sessions), client(url, "/whip/desk") as one:
        async with timeout(60):
            while not sessions.describe() or not any(row["frames_dropped"] for row in sessions.describe()):
                await asyncio.sleep(0.05)
        one.send_signal(signal.SIGKILL)
        await none_left(sessions)
        async with publisher(url, clip(*SIZE, 2)) as again:
            await again.connect("/whip/desk")


async def test_a_viewer_that_vanishes_gives_its_place_back_and_the_stream_goes_on() -> None:
    shown = clip(*SIZE, 30)
    async with AsyncExitStack() as stack:
        url, sessions = await stack.enter_async_context(fake_service(FakeModel(full_mask), max_viewers=1))
        one = await stack.enter_async_context(publisher(url, shown))
        await one.connect("/whip/desk")
        first = await stack.enter_async_context(client(url, "/whep/desk"))
        await first_picture(first)
        first.send_signal(signal.SIGKILL)
        async with timeout(60), publisher(url, shown) as asking:
            offer = await asking.offer()
            while (status := (await asking.post(offer, "/whep/desk")).status) == 503:
                await asyncio.sleep(0.2)
        assert status == 422, "there was no place, or the stream ended"
        assert len(sessions) == 1


async def test_a_client_that_only_pauses_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped for less than the limit, which a busy machine must not reach, as a laptop that changes its network."""
    monkeypatch.setattr(connection, "SILENT_SECONDS", 30.0)
    async with fake_service(FakeModel(full_mask)) as (url, sessions), client(url, "/webrtc") as one:
        await first_picture(one)
        one.send_signal(signal.SIGSTOP)
        await asyncio.sleep(2.5)
        one.send_signal(signal.SIGCONT)
        [row] = sessions.describe()
        async with timeout(60):
            while sessions[row["id"]].describe()["frames_done"] <= row["frames_done"] + 10:
                await asyncio.sleep(0.05)


async def test_a_connection_that_does_not_close_costs_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CLOSE_SECONDS", 0.2)
    held: list[RTCPeerConnection] = []

    async def hang(self: RTCPeerConnection) -> None:
        held.append(self)
        await asyncio.Event().wait()

    async with fake_service(FakeModel(full_mask)) as (url, sessions), viewer(url, Camera(clip(*SIZE, 3))) as one:
        await one.connect()
        await one.frame()
        close = RTCPeerConnection.close
        monkeypatch.setattr(RTCPeerConnection, "close", hang)
        async with one.http.delete(one.location) as response:
            assert response.status == 200
        await none_left(sessions)
        monkeypatch.setattr(RTCPeerConnection, "close", close)
        for each in held:
            await each.close()
