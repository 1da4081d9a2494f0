"""What a connection holds is freed when it ends, without a garbage collection, which may come hours later."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from portrait.sessions.registry import Sessions
from portrait.transports.webrtc import server
from portrait.transports.webrtc.server import WebRTC
from tests.fakes import FakeModel, full_mask
from tests.people import Clip
from tests.rtc import Camera, fake_service, viewer
from tests.whip import publisher, shown, watcher

__all__ = ["shown"]  # a fixture

pytestmark = pytest.mark.usefixtures("no_sockets_left")


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No garbage collection for the length of the test."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[WebRTC]:
    """The transports that are opened meanwhile."""
    found: list[WebRTC] = []
    stock = WebRTC.__init__

    def init(self: WebRTC, *arguments: Any) -> None:
        stock(self, *arguments)
        found.append(self)

    monkeypatch.setattr(server.WebRTC, "__init__", init)
    return found


def held(webrtc: WebRTC, sessions: Sessions) -> dict[str, weakref.ref[Any]]:
    """What is large of the open connections: codecs, certificates, buffers."""
    found: dict[str, weakref.ref[Any]] = {}
    for name, connection in webrtc._open.connections.items():
        found[f"{name} connection"] = weakref.ref(connection)
        found[f"{name} peer connection"] = weakref.ref(connection.pc)
        for transceiver in connection.pc.getTransceivers():
            found[f"{name} receiver"] = weakref.ref(transceiver.receiver)
            sender: Any = transceiver.sender
            found[f"{name} sender"] = weakref.ref(sender)
            if sender._RTCRtpSender__encoder is not None:
                found[f"{name} encoder"] = weakref.ref(sender._RTCRtpSender__encoder)
            dtls: Any = sender.transport
            found[f"{name} DTLS"] = weakref.ref(dtls)
    for row in sessions.describe():
        session = sessions[row["id"]]
        found[f"{session.id} session"] = weakref.ref(session)
        found[f"{session.id} codec"] = weakref.ref(session._codec)
    return found


async def assert_freed(references: dict[str, weakref.ref[Any]]) -> None:
    """Wait until all of it is gone."""
    left: list[str] = []
    deadline = asyncio.get_running_loop().time() + 20
    while asyncio.get_running_loop().time() < deadline:
        left = [name.partition(" ")[2] for name, reference in references.items() if reference() is not None]
        if not left:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"left: {left}")


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("result", ["composite", "mask"])
async def test_a_loopback_leaves_nothing(shown: Clip, opened: list[WebRTC], result: str) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, sessions), viewer(url, Camera(shown)) as one:
        one.pc.createDataChannel("events")
        await one.connect(result=result)
        for _ in range(5):
            await one.frame()
        references = held(opened[0], sessions)
        assert len(references) > 6
        async with one.http.delete(one.location) as response:
            assert response.status == 200
        assert await sessions.drain(60) == 0
        await assert_freed(references)


@pytest.mark.usefixtures("uncollected")
async def test_a_publisher_and_its_viewers_leave_nothing(shown: Clip, opened: list[WebRTC]) -> None:
    async with (
        fake_service(FakeModel(full_mask)) as (url, sessions),
        publisher(url, shown) as one,
        watcher(url) as two,
    ):
        await one.connect("/whip/desk")
        await two.connect("/whep/desk")
        for _ in range(5):
            await two.frame()
        references = held(opened[0], sessions)
        async with one.http.delete(one.location) as response:
            assert response.status == 200
        assert await sessions.drain(60) == 0
        await assert_freed(references)
