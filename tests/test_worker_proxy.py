"""What one worker does for another: sessions, viewers and stills are found from every connection."""

import asyncio
import gzip
import io
import json
import math
import time
import zlib
from asyncio import timeout
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import pytest
from aiohttp import web
from yarl import URL

from portrait.security import CHECK_SECONDS
from portrait.transports.http.config import HttpConfig
from portrait.transports.http.server import serve_http
from portrait.workers.shared_state import SharedState
from tests.boxes import serving
from tests.people import Clip
from tests.rtc import Camera, viewer
from tests.two_workers import Process, box, get, worker_of
from tests.whip import publisher, shown, watcher

__all__ = ["box", "shown"]  # fixtures


async def test_sessions_spread_over_the_workers_and_are_found_from_every_connection(
    box: tuple[Process, dict[str, Any]], shown: Clip
) -> None:
    url = box[1]["page"].rstrip("/")
    async with AsyncExitStack() as stack:
        viewers = [await stack.enter_async_context(viewer(url, Camera(shown))) for _ in range(4)]
        for each in viewers:
            await each.connect(mode="color", color="#ff0000")
        assert sorted(worker_of(each.location) for each in viewers) == [0, 0, 1, 1]
        for each in viewers:
            await each.frame()
            for _ in range(6):  # a connection of its own each: the kernel chooses who takes it
                assert (await asyncio.to_thread(get, each.location))["mode"] == "color"
            async with each.http.patch(each.location, json={"mode": "blur"}) as response:
                assert (await response.json())["mode"] == "blur"
        assert len(await asyncio.to_thread(get, url + "/v1/sessions")) == 4
        async with viewers[0].http.delete(viewers[0].location) as response:
            assert response.status == 200
        async with viewers[0].http.get(f"{url}/v1/sessions/9-nobody") as response:
            assert response.status == 404


async def test_viewers_come_to_the_worker_of_their_publisher(box: tuple[Process, dict[str, Any]], shown: Clip) -> None:
    url = box[1]["page"].rstrip("/")
    async with AsyncExitStack() as stack:
        owners = set()
        for name in ("hall", "desk"):
            one = await stack.enter_async_context(publisher(url, shown))
            await one.connect(f"/whip/{name}", mode="color")
            owners.add(worker_of(one.location))
            for _ in range(2):
                watching = await stack.enter_async_context(watcher(url))
                await watching.connect(f"/whep/{name}")
                assert worker_of(watching.location) == worker_of(one.location)
                await watching.frame()
                async with watching.http.delete(watching.location) as response:
                    assert response.status == 200
            again = await stack.enter_async_context(publisher(url, shown))
            response = await again.post(await again.offer(), f"/whip/{name}")
            assert (response.status, (await response.json())["title"]) == (409, "STREAM_TAKEN")
        assert owners == {0, 1}


async def test_stills_travel_to_another_worker_and_back_whole(box: tuple[Process, dict[str, Any]], shown: Clip) -> None:
    picture = cv2.imencode(".png", cv2.resize(shown.frames[0], (1280, 960)))[1].tobytes()
    answers = set()
    async with aiohttp.ClientSession() as http:
        for _ in range(8):
            headers = {"Content-Type": "image/png", "Connection": "close"}
            async with http.post(box[1]["page"] + "v1/segment", data=io.BytesIO(picture), headers=headers) as response:
                assert response.status == 200, await response.text()
                answers.add(await response.read())
    assert len(answers) == 1


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_compressed_body_is_understood_whichever_worker_answers(
    box: tuple[Process, dict[str, Any]], shown: Clip, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    """It was sent on uncompressed and said to be compressed, so that it was refused by chance."""
    url = box[1]["page"].rstrip("/")
    headers = {"Content-Type": "application/json", "Content-Encoding": coding, "Connection": "close"}
    async with viewer(url, Camera(shown)) as one, viewer(url, Camera(shown)) as two:
        for each in (one, two):
            await each.connect(mode="color")
        assert worker_of(one.location) != worker_of(two.location)
        for body, status in ((compress(b'{"mode": "blur"}'), 200), (b"is not compressed", 400)):
            answers = []
            for each in (one, two) * 6:  # a connection of its own each: the kernel chooses who takes it
                async with each.http.patch(each.location, data=body, headers=headers) as response:
                    answers.append(response.status)
            assert answers == [status] * 12


async def test_a_target_with_a_host_is_answered_whichever_worker_takes_it(box: tuple[Process, dict[str, Any]]) -> None:
    """As RFC 9112 section 3.2.2 wants it; it was 404 where another worker had to answer."""
    url = URL(box[1]["page"])
    for target in ("http://other.example/v1/sessions/{}-nobody", "/v1/sessions/{}-nobody"):
        for worker in (0, 1) * 4:
            answer = await ask_raw(url, f"GET {target.format(worker)} HTTP/1.1")
            assert b"NO_SUCH_SESSION" in answer


async def ask_raw(url: URL, line: str) -> bytes:
    """The whole answer to a request of this first line."""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    async with timeout(60):
        writer.write(f"{line}\r\nHost: box\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
    writer.close()
    return answer


async def test_headers_that_are_not_utf8_reach_no_other_worker(box: tuple[Process, dict[str, Any]]) -> None:
    """They cannot be sent on: /metrics, which needs no credentials, was a 500 with a traceback in the log."""
    url = URL(box[1]["page"])
    for path, status in (("/metrics", 200), ("/v1/sessions/1-nobody", 404), ("/v1/sessions/0-nobody", 404)):
        reader, writer = await asyncio.open_connection(url.host, url.port)
        head = f"GET {path} HTTP/1.1\r\nHost: box\r\nAccept: \xff\r\nX-Name: \xff\r\nConnection: close\r\n\r\n"
        writer.write(head.encode("latin-1"))
        async with timeout(60):
            assert int((await reader.readline()).split()[1]) == status
        writer.close()


async def test_bodies_flow_through_another_worker_as_they_come_and_its_answer_is_cut_when_it_is(tmp_path: Path) -> None:
    """Both ways at once: an event stream that answers line by line."""

    async def echo(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"X-Remote": request.remote or ""})
        await answer.prepare(request)
        async for line in request.content:
            if line == b"die\n":
                assert request.transport is not None
                request.transport.abort()  # as the kernel does for a process that is killed
            await answer.write(line)
        return answer

    states = [SharedState(tmp_path, index, 2) for index in range(2)]
    routes = [web.patch("/v1/sessions/{id}", echo)]
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    async def body() -> AsyncIterator[bytes]:
        while line := await lines.get():
            yield line

    async with timeout(60), AsyncExitStack() as stack:
        ports = [
            await stack.enter_async_context(serve_http(routes, HttpConfig("127.0.0.1", 0, 2**20, 10**6), shared=state))
            for state in states
        ]
        http = await stack.enter_async_context(aiohttp.ClientSession())
        url = f"http://127.0.0.1:{ports[0]}/v1/sessions/1-x"
        lines.put_nowait(b"one\n")
        async with http.patch(url, data=body()) as answer:
            assert answer.headers["X-Remote"] == "127.0.0.1"
            assert await answer.content.readline() == b"one\n"
            lines.put_nowait(b"two\n")
            assert await answer.content.readline() == b"two\n"
            lines.put_nowait(b"die\n")
            with pytest.raises(aiohttp.ClientError):
                await answer.read()
            lines.put_nowait(b"")
    for state in states:
        state.close()


async def test_a_worker_that_listens_for_a_client_needs_no_token_of_its_own(tmp_path: Path, shown: Clip) -> None:
    """It was disconnected every two seconds, and the client told each time that the other's streams had ended."""
    (tmp_path / "tokens").write_text("one 0123456789abcdef\n")
    headers = {"Authorization": "Bearer 0123456789abcdef"}
    with serving("--workers", "2", "--drain-seconds", "0", "--tokens", str(tmp_path / "tokens")) as (_, told):
        url = told["page"].rstrip("/")
        async with (
            timeout(120),
            aiohttp.ClientSession(headers=headers) as http,
            http.get(f"{url}/v1/events") as response,
            publisher(url, shown) as one,
            publisher(url, shown) as two,
        ):
            for each in (one, two):
                each.http.headers.update(headers)  # type: ignore[attr-defined]  # a multidict behind a read-only view
            await one.connect("/whip/one")
            await two.connect("/whip/two")
            assert worker_of(one.location) != worker_of(two.location)
            seen: set[str] = set()
            ended = []
            deadline = math.inf
            while time.monotonic() < deadline:
                with suppress(TimeoutError):
                    async with timeout(0.5):
                        line = await response.content.readline()
                        if line.startswith(b"data: "):
                            event = json.loads(line[6:])
                            seen.add(event["stream"])
                            ended += [event] if event["ended"] else []
                if seen == {"one", "two"} and deadline == math.inf:
                    deadline = time.monotonic() + 2.5 * CHECK_SECONDS
            assert not ended


async def test_who_listens_to_events_hears_of_the_streams_of_every_worker(
    box: tuple[Process, dict[str, Any]], shown: Clip
) -> None:
    url = box[1]["page"].rstrip("/")
    async with (
        timeout(120),
        aiohttp.ClientSession() as http,
        http.get(f"{url}/v1/events") as response,
        publisher(url, shown) as one,
        publisher(url, shown) as two,
    ):
        await one.connect("/whip/one")
        await two.connect("/whip/two")
        assert worker_of(one.location) != worker_of(two.location)
        seen: set[str] = set()
        while seen != {"one", "two"}:
            line = await response.content.readline()
            if line.startswith(b"data: ") and (event := json.loads(line[6:]))["present"]:
                seen.add(event["stream"])
