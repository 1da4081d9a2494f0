"""Who comes and leaves is told over gRPC, HTTP, data channels, a webhook and MQTT: real receivers, a fake network."""

import asyncio
import base64
import hashlib
import hmac
import json
import shutil
import socket
import subprocess
from asyncio import timeout
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import aiomqtt
import numpy as np
import pytest
from aiohttp import web

from portrait.client import Client, Picture, Stream
from portrait.errors import BadSettings
from portrait.image.frame import Frame, Mask
from portrait.server.app import RunningService, run_service
from portrait.settings import Settings
from tests.fakes import FakeModel
from tests.faults.troubles import instead_of_the_embedded
from tests.people import clip, room
from tests.posts import encoded, problem_of
from tests.rtc import SIZE, Camera, viewer
from tests.whip import publisher, watcher

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed: run make system-packages")

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
QUICK = {"presence_enter_seconds": 0.1, "presence_leave_seconds": 0.1}


class Person:
    """Stands in the left half of what the network sees, or not."""

    def __init__(self) -> None:
        self.there = False

    def segment(self, _: Frame) -> Mask:
        values = np.zeros((32, 32), np.uint8)
        values[:, :16] = 255 * self.there
        return Mask(values)


@asynccontextmanager
async def running(settings: Settings, **more: Any) -> AsyncIterator[tuple[RunningService, Person]]:
    person = Person()
    with instead_of_the_embedded(FakeModel(person.segment)):
        async with run_service(Settings.model_validate({**settings.model_dump(), **QUICK, **more})) as service:
            yield service, person


class Frames:
    """Frames of a gRPC stream, a fifth of a second apart by their own time."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self._count = stream, 0
        self._picture = Picture.jpeg(encoded(room(64, 48)))

    async def send(self, count: int = 1) -> Any:
        for _ in range(count):
            self._count += 1
            await self.stream.send(self._picture, self._count, 200_000 * self._count)
            reply = await self.stream.receive()
        return reply


@asynccontextmanager
async def streaming(service: RunningService) -> AsyncIterator[Frames]:
    async with Client(f"127.0.0.1:{service.grpc_port}") as client, client.open_stream(every_frame=True) as stream:
        yield Frames(stream)


async def events_of(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in response.content:
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


async def test_a_grpc_result_and_its_session_say_who_is_there_and_listeners_are_told(settings: Settings) -> None:
    async with running(settings) as (service, person), aiohttp.ClientSession() as http, timeout(60):
        url = f"http://127.0.0.1:{service.http_port}"
        async with http.get(f"{url}/v1/events") as response:
            assert response.content_type == "text/event-stream"
            events = events_of(response)
            async with streaming(service) as frames:
                reply = await frames.send()
                assert (reply.presence.present, reply.presence.share, reply.presence.box) == (False, 0.0, None)
                first = await anext(events)
                person.there = True
                presence = (await frames.send(2)).presence
                assert presence.present
                assert presence.share == pytest.approx(0.5)
                assert presence.box == pytest.approx((0.0, 0.0, 0.5, 1.0))
                second = await anext(events)
                name = frames.stream.info.session_id
                async with http.get(f"{url}/v1/sessions/{name}") as answer:
                    told = (await answer.json())["presence"]
                box = {"left": 0.0, "top": 0.0, "width": 0.5, "height": 1.0}
                assert told == {"present": True, "share": 0.5, "box": box}
                async with http.get(f"{url}/v1/events") as late:
                    assert await anext(events_of(late)) == second
            third = await anext(events)
        told = [(each["session"], each["present"], each["share"], each["ended"]) for each in (first, second, third)]
        short = name[:6]
        assert told == [(short, False, 0.0, False), (short, True, 0.5, False), (short, False, 0.0, True)]
        assert (second["stream"], second["transport"], second["box"]) == (None, "grpc", box)


async def test_listeners_need_credentials_and_are_bounded(settings: Settings, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("reader 0123456789abcdef\n")
    async with running(settings, tokens=tokens, max_event_listeners=1) as (service, _), aiohttp.ClientSession() as http:
        url, bearer = f"http://127.0.0.1:{service.http_port}/v1/events", {"Authorization": "Bearer 0123456789abcdef"}
        async with http.get(url) as response:
            assert response.status == 401
        async with http.get(url, headers=bearer) as response:
            assert response.status == 200
            async with http.get(url, headers=bearer) as second:
                assert second.headers["Retry-After"] == "5"
                assert "1 of 1 listeners" in await problem_of(second, 503, "TOO_MANY_LISTENERS")
            tokens.write_text("another fedcba9876543210\n")
            async with timeout(60):  # revoked
                while await response.content.read(1024):
                    pass


async def test_a_loopback_is_told_on_its_events_channel_and_a_stream_nobody_watches_is_listened_to(
    settings: Settings,
) -> None:
    shown = clip(*SIZE, 30)
    async with running(settings) as (service, person), timeout(120):
        url = f"http://127.0.0.1:{service.http_port}"
        async with viewer(url, Camera(shown)) as one:
            told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
            channel = one.pc.createDataChannel("events")
            channel.on("message", lambda text: told.put_nowait(json.loads(text)))
            await one.connect(mode="silhouette")
            one.result.add_done_callback(lambda _: None)
            watching = asyncio.create_task(_watch(one))
            assert not (await told.get())["presence"]["present"]
            person.there = True
            while not (await told.get())["presence"]["present"]:
                pass
            watching.cancel()
        person.there = False
        async with publisher(url, shown) as one:
            await one.connect("/whip/door")
            async with one.http.get(f"{url}/v1/events", params={"stream": "door"}) as response:
                events = events_of(response)
                assert (await anext(events))["present"] is False
                person.there = True
                event = await anext(events)
                assert (event["stream"], event["present"]) == ("door", True)


async def test_a_viewer_is_told_of_presence_in_what_it_watches_and_of_the_streams_end(settings: Settings) -> None:
    async with running(settings) as (service, person), timeout(120):
        url = f"http://127.0.0.1:{service.http_port}"
        async with publisher(url, clip(*SIZE, 30)) as one, watcher(url) as two:
            told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
            for label in ("events", "other"):
                two.pc.createDataChannel(label).on("message", lambda text: told.put_nowait(json.loads(text)))
            await one.connect("/whip/door")
            await two.connect("/whep/door/mask")
            watching = asyncio.create_task(_watch(two))
            assert (await told.get())["presence"] == {"present": False, "share": 0.0, "box": None}
            person.there = True
            while not (event := await told.get())["presence"]["present"]:
                pass
            assert event["presence"]["share"] == 0.5
            await one.http.delete(one.location)
            while "closed" not in (event := await told.get()):
                pass
            assert event == {"closed": "the stream ended"}
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            async with one.http.get(f"{url}/metrics") as response:
                assert 'portrait_events_total{result="sent",sink="channel"}' in await response.text()


async def _watch(one: Any) -> None:
    while True:
        await one.frame()


class Receiver:
    """An HTTP server that takes webhooks, after it has refused the first few."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals, self.attempts = refusals, 0
        self.taken: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        application = web.Application()
        application.router.add_post("/hook", self._take)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        finally:
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.attempts += 1
        if self.attempts <= self.refusals:
            return web.Response(status=503)
        self.taken.put_nowait((dict(request.headers), await request.read()))
        return web.Response(status=204)


async def test_a_webhook_is_signed_and_tried_again_until_it_is_taken(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portrait.transports.notify.webhook.FIRST_WAIT", 0.05)
    receiver = Receiver(refusals=2)
    async with receiver.serving() as address, timeout(60):
        async with running(settings, webhook=address, webhook_secret=SECRET) as (service, person):
            person.there = True
            async with streaming(service) as frames:
                await frames.send()
                headers, body = await receiver.taken.get()
                assert receiver.attempts == 3
                await frames.send(2)
                assert json.loads((await receiver.taken.get())[1])["data"]["present"] is True
        ended = json.loads((await receiver.taken.get())[1])["data"]
    assert (ended["present"], ended["ended"]) == (False, True)
    sent = headers["webhook-signature"].removeprefix("v1,")
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = hmac.new(bytes(range(24)), signed, hashlib.sha256).digest()
    assert base64.b64decode(sent) == expected
    message = json.loads(body)
    assert (message["type"], message["data"]["present"]) == ("presence", False)


async def test_a_dead_receiver_costs_no_stream_a_frame_and_what_it_misses_is_counted(settings: Settings) -> None:
    with socket.socket() as bound:  # takes connections in its backlog, and never answers
        bound.bind(("127.0.0.1", 0))
        bound.listen(1)
        address = f"http://127.0.0.1:{bound.getsockname()[1]}/"
        async with running(settings, webhook=address, webhook_secret=SECRET) as (service, person), timeout(60):
            async with streaming(service) as frames:
                for number in range(100):
                    person.there = bool(number % 2)
                    assert (await frames.send(2)).error is None
            async with (
                aiohttp.ClientSession() as http,
                http.get(f"http://127.0.0.1:{service.http_port}/metrics") as response,
            ):
                text = await response.text()
    dropped = next(
        line for line in text.splitlines() if line.startswith('portrait_events_total{result="dropped",sink="webhook"}')
    )
    assert float(dropped.split()[1]) >= 90


@contextmanager
def broker(folder: Path, port: int) -> Iterator[None]:
    """Mosquitto, for one user."""
    assert MOSQUITTO is not None
    config, passwords = folder / "mosquitto.conf", folder / "passwords"
    if not passwords.exists():
        subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "box", "p:ss"], check=True)
        passwords.chmod(0o644)
        folder.chmod(0o755)
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\npersistence false\nuser root\n"
    )
    process = subprocess.Popen([MOSQUITTO, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


async def listening(port: int) -> None:
    async with timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


async def retained(port: int, wanted: dict[str, str]) -> dict[str, str]:
    """What the broker holds, as soon as these topics hold that."""
    found: dict[str, str] = {}
    async with timeout(60), aiomqtt.Client("127.0.0.1", port, username="box", password="p:ss") as client:
        await client.subscribe("#")
        async for message in client.messages:
            found[str(message.topic)] = bytes(message.payload).decode()  # type: ignore[arg-type]
            if wanted.items() <= found.items():
                return found
    raise AssertionError("the broker has gone")


@needs_mosquitto
async def test_a_broker_is_told_of_named_streams_and_again_after_it_was_away(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FIRST_WAIT", "LONGEST_WAIT"):
        monkeypatch.setattr(f"portrait.transports.notify.mqtt.{name}", 0.1)
    port, shown = free_port(), clip(*SIZE, 30)
    address = f"mqtt://box:p%3Ass@127.0.0.1:{port}"
    async with running(settings, mqtt=address) as (service, person), timeout(120):
        url = f"http://127.0.0.1:{service.http_port}"
        async with publisher(url, shown) as one:
            await one.connect("/whip/front%20door")
            there, online = "portrait/front_door_" + hashlib.sha256(b"front door").hexdigest()[:8], "online"
            with broker(tmp_path, port):  # not there until now
                await listening(port)
                await retained(port, {f"{there}/presence": "OFF", f"{there}/availability": online})
                person.there = True
                found = await retained(port, {f"{there}/presence": "ON"})
                assert found["portrait/worker-0/availability"] == online
                name = there.replace("/", "_")
                announced = json.loads(found[f"homeassistant/binary_sensor/{name}/config"])
                assert (announced["device_class"], announced["state_topic"]) == ("occupancy", f"{there}/presence")
                assert announced["default_entity_id"] == f"binary_sensor.{name}"
                assert announced["device"]["name"] == "front door"
                assert {each["topic"] for each in announced["availability"]} <= found.keys()
                assert json.loads(found[f"{there}/attributes"])["share"] == 0.5
            with broker(tmp_path, port):  # another one: it remembers nothing
                await listening(port)
                found = await retained(port, {f"{there}/presence": "ON", f"{there}/availability": online})
                assert f"homeassistant/binary_sensor/{name}/config" in found
                await one.http.delete(one.location)
                await retained(port, {f"{there}/presence": "OFF", f"{there}/availability": "offline"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"webhook": "http://127.0.0.1/"}, "PORTRAIT_WEBHOOK_SECRET: got nothing"),
        ({"webhook": "http://127.0.0.1/", "webhook_secret": "short"}, "expected at least 16 characters"),
        ({"webhook": "http://127.0.0.1/", "webhook_secret": "whsec_%%%"}, "no base64"),
    ],
)
async def test_secrets_that_cannot_sign_are_refused_and_not_repeated(
    settings: Settings, given: dict[str, str], message: str
) -> None:
    with pytest.raises(BadSettings, match=message) as raised:
        async with running(settings, **given):
            pass
    assert "%%%" not in str(raised.value)
    assert "short" not in str(raised.value)
