"""nginx and HAProxy before two real replicas, one of which is killed."""

import asyncio
import time
import urllib.error
import urllib.request
from asyncio import timeout
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from aiortc import RTCPeerConnection

from portrait.client import Client, ClientError, Picture
from portrait_client.client import Stream
from tests.boxes import serving
from tests.calls import jpeg
from tests.deploy.live.engine import answers
from tests.deploy.live.proxies import WRITERS, Proxy, Replica, proxied
from tests.deploy.live.streaming import together
from tests.people import Array, clip, iou

pytestmark = pytest.mark.live

STREAMS = 8
BACK_SECONDS = 2.0


@pytest.fixture
def replicas() -> Iterator[list[Replica]]:
    """Two, each with room for all and patience at the end."""
    with ExitStack() as stack:
        found = []
        for _ in range(2):
            process, announced = stack.enter_context(serving("--max-sessions", str(STREAMS), "--drain-seconds", "60"))
            http, grpc = (int(announced[key].rstrip("/").rpartition(":")[2]) for key in ("page", "grpc"))
            found.append(Replica(process, http, grpc))
        yield found


@pytest.fixture(params=list(WRITERS))
def proxy(request: pytest.FixtureRequest, tmp_path: Path, replicas: list[Replica]) -> Iterator[Proxy]:
    with proxied(request.param, tmp_path, replicas) as running:
        yield running


class Watcher:
    """A user with one stream, who comes back whenever it breaks."""

    def __init__(self, client: Client, picture: Picture) -> None:
        self._client, self._picture = client, picture
        self.masks: list[Array] = []
        self.breaks: list[str] = []
        """What each break was called."""
        self.returned = 0.0
        """When the first mask after a break came, on the monotonic clock."""

    async def run(self) -> None:
        """Stream until cancelled."""
        while True:
            try:
                async with self._client.open_stream(every_frame=True) as stream:
                    await self._send(stream)
            except ClientError as error:
                self.breaks.append(error.code)
                await asyncio.sleep(0.05)

    async def _send(self, stream: Stream) -> None:
        for i in range(10**9):
            await stream.send(self._picture, i)
            reply = await stream.receive()
            if reply is None:
                return
            self.masks.append(reply.array)
            if self.breaks and not self.returned:
                self.returned = time.monotonic()
            await asyncio.sleep(0.1)


@asynccontextmanager
async def watching(target: str) -> AsyncIterator[list[Watcher]]:
    """Eight users over one connection."""
    picture = jpeg(clip(640, 360, 1).frames[0])
    async with Client(target) as client:
        watchers = [Watcher(client, picture) for _ in range(STREAMS)]
        tasks = [asyncio.create_task(watcher.run()) for watcher in watchers]
        try:
            yield watchers
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            broken = [each for each in results if not isinstance(each, asyncio.CancelledError)]
            assert not broken, broken


async def reached(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait for a condition on this loop; how long it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not {what} within {seconds:g} s"
        await asyncio.sleep(0.02)
    return time.monotonic() - started


async def test_streams_of_one_connection_go_to_both_and_outlive_the_death_of_one(
    proxy: Proxy, replicas: list[Replica]
) -> None:
    async with watching(f"127.0.0.1:{proxy.grpc}") as watchers:
        await reached(lambda: all(len(watcher.masks) > 5 for watcher in watchers), 30, "streaming")
        assert [await asyncio.to_thread(lambda each=each: each.sessions) for each in replicas] == [4, 4]

        replicas[0].process.kill()
        killed, before = time.monotonic(), [len(watcher.masks) for watcher in watchers]
        await reached(lambda: sum(watcher.returned > 0 for watcher in watchers) == 4, 20, "streaming again")
        await reached(lambda: all(len(w.masks) > n + 10 for w, n in zip(watchers, before, strict=True)), 20, "going on")
        gone = [watcher for watcher in watchers if watcher.breaks]
        assert len(gone) == 4, "the four on the other replica noticed nothing"
        assert {code for watcher in gone for code in watcher.breaks} == {"UNAVAILABLE"}
        assert max(watcher.returned for watcher in gone) - killed < BACK_SECONDS
        assert replicas[1].sessions == STREAMS
        for watcher in watchers:
            assert min(iou(watcher.masks[4], mask) for mask in watcher.masks[5:]) > 0.9, "a mask jumped"


async def test_the_client_goes_on_by_itself_from_the_mask_it_had(proxy: Proxy, replicas: list[Replica]) -> None:
    """Two streams of `Client.stream`, one on each box; then one box dies."""
    picture = jpeg(clip(640, 360, 1).frames[0])
    times: list[list[float]] = [[], []]
    masks: list[list[Array]] = [[], []]

    async def camera() -> AsyncIterator[Picture]:
        while True:
            yield picture
            await asyncio.sleep(0.05)

    async def watch(i: int, client: Client) -> None:
        async with aclosing(client.stream(camera(), every_frame=True)) as replies:
            async for reply in replies:
                times[i].append(time.monotonic())
                masks[i].append(reply.array)

    async with Client(f"127.0.0.1:{proxy.grpc}") as client, together(*(watch(i, client) for i in range(2))):
        await reached(lambda: all(len(each) > 20 for each in masks), 30, "streaming")
        assert [each.sessions for each in replicas] == [1, 1]
        replicas[0].process.kill()
        seen = [len(each) for each in masks]
        await reached(lambda: all(len(m) > n + 20 for m, n in zip(masks, seen, strict=True)), 30, "streaming again")
        assert replicas[1].sessions == 2
    for i in range(2):
        assert max(np.diff(times[i])) < BACK_SECONDS
        assert min(iou(masks[i][10], mask) for mask in masks[i][11:]) > 0.97, "a mask jumped"


async def test_a_box_that_drains_keeps_its_streams_and_gets_no_new_ones(
    tmp_path: Path, replicas: list[Replica]
) -> None:
    """HAProxy only: nginx does not ask for readiness."""
    picture = jpeg(clip(160, 120, 1).frames[0])
    with proxied("haproxy", tmp_path, replicas) as proxy:
        async with (
            Client(f"127.0.0.1:{proxy.grpc}") as client,
            client.open_stream(every_frame=True) as one,
            client.open_stream(every_frame=True) as other,
        ):
            replicas[0].process.terminate()
            url = f"http://127.0.0.1:{replicas[0].http}/readyz"
            await reached(lambda: not answers(url), 10, "draining")
            # Until the proxy has asked twice, it may still send a stream to the box, which refuses it.
            placed = 0
            async with timeout(20):
                while placed < 4:
                    try:
                        async with client.open_stream():
                            placed += 1
                    except ClientError as error:
                        assert error.reason == "DRAINING"  # noqa: PT017  it is one of two good outcomes
                        placed = 0
                        await asyncio.sleep(0.2)
            for stream in (one, other):
                await stream.send(picture, 1)
                assert await stream.receive() is not None


async def offer() -> tuple[RTCPeerConnection, str]:
    connection = RTCPeerConnection()
    connection.addTransceiver("video", direction="sendrecv")
    await connection.setLocalDescription(await connection.createOffer())
    return connection, connection.localDescription.sdp


def ask(method: str, url: str, body: str | None = None, kind: str = "application/json") -> tuple[int, Any]:
    """Status and headers of one request."""
    request = urllib.request.Request(url, body.encode() if body else None, {"Content-Type": kind}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


async def test_sessions_are_found_again_wherever_they_are(proxy: Proxy, replicas: list[Replica]) -> None:
    """WebRTC's signalling: four sessions by POST; each answers PATCH and DELETE at its own address."""
    base = f"http://127.0.0.1:{proxy.http}"
    async with AsyncExitStack() as stack:
        locations = []
        for _ in range(4):
            connection, sdp = await offer()
            stack.push_async_callback(connection.close)
            status, headers = await asyncio.to_thread(ask, "POST", f"{base}/webrtc", sdp, "application/sdp")
            assert status == 201
            locations.append(headers["Location"])
        assert [each.sessions for each in replicas] == [2, 2]
        for location in locations:
            assert (await asyncio.to_thread(ask, "PATCH", base + location, '{"mode": "mask"}'))[0] == 200
            assert (await asyncio.to_thread(ask, "DELETE", base + location))[0] == 200
        await reached(lambda: not any(each.sessions for each in replicas), 10, "ended")
        assert (await asyncio.to_thread(ask, "GET", f"{base}/v1/sessions/nobody"))[0] == 404


async def test_a_full_box_sends_nobody_away_while_another_has_room(proxy: Proxy, replicas: list[Replica]) -> None:
    async with AsyncExitStack() as stack:

        async def post(port: int) -> int:
            connection, sdp = await offer()
            stack.push_async_callback(connection.close)
            url = f"http://127.0.0.1:{port}/webrtc"
            return (await asyncio.to_thread(ask, "POST", url, sdp, "application/sdp"))[0]

        assert [await post(replicas[0].http) for _ in range(STREAMS)] == [201] * STREAMS
        assert await post(replicas[0].http) == 503
        assert [await post(proxy.http) for _ in range(4)] == [201] * 4
        assert replicas[1].sessions == 4


async def test_who_watches_a_stream_comes_to_the_box_of_who_publishes_it(proxy: Proxy) -> None:
    """Names enough for both boxes; a viewer of another box would be told that nobody publishes."""
    base = f"http://127.0.0.1:{proxy.http}"
    async with AsyncExitStack() as stack:
        for name in ("hall", "desk", "door", "yard"):
            connection, sdp = await offer()
            stack.push_async_callback(connection.close)
            status, headers = await asyncio.to_thread(ask, "POST", f"{base}/whip/{name}", sdp, "application/sdp")
            assert status == 201
            published = headers["Location"]
            viewer, sdp = await offer()
            stack.push_async_callback(viewer.close)
            status, headers = await asyncio.to_thread(ask, "POST", f"{base}/whep/{name}", sdp, "application/sdp")
            assert status == 201
            assert (await asyncio.to_thread(ask, "DELETE", base + headers["Location"]))[0] == 200
            assert (await asyncio.to_thread(ask, "DELETE", base + published))[0] == 200


async def test_numbers_are_not_shown_to_the_world(proxy: Proxy) -> None:
    assert (await asyncio.to_thread(ask, "GET", f"http://127.0.0.1:{proxy.http}/metrics"))[0] == 404


async def test_stills_go_to_whoever_is_alive(proxy: Proxy, replicas: list[Replica]) -> None:
    url = f"http://127.0.0.1:{proxy.http}/v1/segment?mode=mask"
    picture = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()

    def segment() -> int:
        request = urllib.request.Request(url, picture, {"Content-Type": "image/jpeg"})
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)

    assert await asyncio.to_thread(segment) == 200
    replicas[1].process.kill()
    replicas[1].process.wait()
    assert [await asyncio.to_thread(segment) for _ in range(6)] == [200] * 6
