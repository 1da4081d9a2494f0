"""What a credential has opened ends with it, whichever transport it came by."""

import asyncio
import itertools
import time
from asyncio import timeout
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from portrait import security
from portrait.client import Client, ClientError
from portrait.security import bearers
from portrait.settings import Settings
from portrait.v1 import segmentation_pb2 as pb
from tests.calls import jpeg
from tests.credentials import OTHER, TOKEN, replace, serving, tokens
from tests.people import clip, room
from tests.rtc import SIZE, Camera, viewer

__all__ = ["tokens"]  # fixtures


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "CHECK_SECONDS", 0.05)


async def test_a_stream_ends_with_its_token(settings: Settings, tokens: Path) -> None:
    async with serving(settings, tokens=tokens) as running:
        target = f"localhost:{running.grpc_port}"
        async with (
            Client(target, token=TOKEN) as mine,
            Client(target, token=OTHER) as others,
            mine.open_stream() as ending,
            others.open_stream() as lasting,
        ):
            await ending.send(jpeg(room(64, 48)), 1)
            assert await ending.receive() is not None
            replace(tokens, f"office {OTHER}\n".encode())
            with pytest.raises(ClientError) as ended:
                await ending.receive()
            assert (ended.value.code, ended.value.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
            assert "no longer valid" in ended.value.message
            await lasting.send(jpeg(room(64, 48)), 1)
            assert await lasting.receive() is not None
            assert len(running.sessions) == 1


async def test_a_stream_ends_when_its_signed_token_expires(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, file = ed25519.Ed25519PrivateKey.generate(), tmp_path / "key.pem"
    encoding = serialization.Encoding.PEM
    file.write_bytes(key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo))
    async with serving(settings, jwt_keys=file) as running:
        token = jwt.encode({"sub": "camera", "exp": time.time() + 3600}, key, "EdDSA")
        async with Client(f"localhost:{running.grpc_port}", token=token) as client, client.open_stream() as stream:
            monkeypatch.setattr(bearers, "LEEWAY", -7200)  # as if two hours had passed
            with pytest.raises(ClientError) as ended:
                await stream.receive()
        assert ended.value.code == "UNAUTHENTICATED"


async def test_a_stream_ends_when_nobody_can_say_whether_its_token_is_valid(
    settings: Settings, tokens: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(settings, tokens=tokens) as running:
        client = Client(f"localhost:{running.grpc_port}", token=TOKEN)
        async with client, client.open_stream() as stream:
            monkeypatch.setattr(bearers, "_digest", lambda _: 1 / 0)
            with pytest.raises(ClientError, match="could not be checked again") as ended:
                await stream.receive()
        assert ended.value.code == "UNAUTHENTICATED"
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.usefixtures("no_sockets_left")
async def test_connections_end_with_their_token(settings: Settings, tokens: Path) -> None:
    shown = clip(*SIZE, 10)
    async with serving(settings, tokens=tokens) as running:
        url = f"http://localhost:{running.http_port}"
        async with viewer(url) as publisher, viewer(url) as watcher, viewer(url, Camera(shown)) as page:
            for one, token in ((publisher, OTHER), (watcher, TOKEN), (page, TOKEN)):
                one.http.headers["Authorization"] = f"Bearer {token}"
            publisher.pc.addTransceiver(Camera(shown), direction="sendonly")
            watcher.pc.addTransceiver("video", direction="recvonly")
            await publisher.connect("/whip/desk")
            await watcher.connect("/whep/desk")
            await page.connect()
            for one in (watcher, page):
                await one.frame()
            assert len(running.sessions) == 2
            replace(tokens, f"office {OTHER}\n".encode())
            async with timeout(60):
                while len(running.sessions) > 1:
                    await asyncio.sleep(0.01)
                for one in (watcher, page):
                    one.http.headers["Authorization"] = f"Bearer {OTHER}"
                    while (await one.http.get(one.location)).status != 404:
                        await asyncio.sleep(0.01)
            assert (await publisher.numbers())["transport"] == "webrtc"


async def test_a_client_that_takes_no_result_cannot_keep_its_session(settings: Settings) -> None:
    async with (
        serving(settings, idle_seconds=1.0) as running,
        Client(f"localhost:{running.grpc_port}") as client,
        client.open_stream(mode="blur", format=pb.PICTURE_FORMAT_I420) as stream,
    ):

        async def send() -> None:  # half a megabyte of each result fills the windows, and none is received
            for number in itertools.count():
                await stream.send(jpeg(room(640, 480)), number)
                await asyncio.sleep(0.05)

        sender = asyncio.create_task(send())
        async with timeout(60):
            while running.sessions:
                await asyncio.sleep(0.01)
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
