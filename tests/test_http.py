"""HTTP: stills, session resources, metrics, health, and every error as problem+json."""

import asyncio
import base64
import io
import json
import threading
import time
from unittest.mock import patch

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from portrait import __version__
from portrait.client import Client, Picture
from portrait.image.backgrounds import load_background
from portrait.image.frame import Frame
from portrait.server.app import RunningService
from portrait.transports.http.changes import MOST_BYTES, read_change
from tests.people import room
from tests.posts import SHOWN, encoded, form, http, problem_of

__all__ = ["http"]  # a fixture


async def test_a_full_service_refuses_with_a_time_to_try_again(
    service: RunningService, http: aiohttp.ClientSession
) -> None:
    async with Client(f"127.0.0.1:{service.grpc_port}") as client:
        streams = [client.open_stream() for _ in range(4)]
        for stream in streams:
            await stream.__aenter__()
        async with http.post("/v1/segment", data=form(encoded(SHOWN.frames[0]))) as response:
            assert response.headers["Retry-After"] == "5"
            assert "4 of 4 sessions are open" in await problem_of(response, 503, "TOO_MANY_SESSIONS")
        for stream in streams:
            await stream.__aexit__(None, None, None)


async def test_a_grpc_session_is_seen_changed_and_ended_by_http(
    service: RunningService, http: aiohttp.ClientSession
) -> None:
    async with Client(f"127.0.0.1:{service.grpc_port}") as client, client.open_stream(every_frame=True) as stream:
        url = f"/v1/sessions/{stream.info.session_id}"
        await stream.send(Picture.jpeg(encoded(SHOWN.frames[0])), 1)
        await stream.receive()
        async with http.get(url) as response:
            numbers = await response.json()
        assert (numbers["frames_done"], numbers["width"], numbers["height"]) == (1, 640, 360)
        assert (numbers["mode"], numbers["transport"]) == ("mask", "grpc")
        async with http.patch(url, json={"mode": "blur", "reset": True}) as response:
            assert (await response.json())["mode"] == "blur"
        async with http.delete(url) as response:
            assert response.status == 200
        with pytest.raises(Exception, match="ended by DELETE"):
            await stream.receive()


async def test_the_list_of_sessions_tells_no_whole_id(service: RunningService, http: aiohttp.ClientSession) -> None:
    async with Client(f"127.0.0.1:{service.grpc_port}") as client, client.open_stream() as stream:
        async with http.get("/v1/sessions") as response:
            listed = await response.json()
        assert len(listed) == 1
        assert stream.info.session_id not in str(listed)


CHANGES = "mode, color, background, people, threshold, feather, margin, framing, decontaminate, reset"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not JSON"),
        (b"[]", f"expected a JSON object with any of {CHANGES}"),
        (
            b'{"moed": "blur"}',
            f"expected a JSON object with any of {CHANGES}",
        ),
        (b'{"mode": "blur", "mode": "color"}', "mode: got the member twice, expected it once"),
        (b'{"mode": {"a": 1, "a": 2}}', "a: got the member twice, expected it once"),
        (b'{"mode": 3}', "mode: got 3, expected a string"),
        (b'{"threshold": "half"}', "got half, expected a number from 0 to 1"),
        (b'{"feather": 1e999}', "got inf, expected a number from 0 to 1"),
        (b'{"feather": 0.9}', "got 0.9, expected 0.02 to 0.5"),
        (b'{"people": "some"}', "got 'some', expected one of all, largest, nearest-centre"),
        (b'{"margin": 0.3}', "got 0.3, expected 0 to 0.2"),
        (b'{"framing": 1}', "got 1, expected true or false"),
        (b'{"reset": "yes"}', "got 'yes', expected true or false"),
        (b'{"mode": "sepia"}', "unknown mode 'sepia'"),
        (b'{"background": "data:image/png;base64,%%%"}', "a data URL that is not base64"),
        (b'{"background": "http://example.com/x.png"}', "unknown background 'http://example.com/x.png'"),
    ],
)
async def test_a_bad_change_is_refused_and_changes_nothing(
    service: RunningService, http: aiohttp.ClientSession, body: bytes, message: str
) -> None:
    async with Client(f"127.0.0.1:{service.grpc_port}") as client, client.open_stream() as stream:
        url = f"/v1/sessions/{stream.info.session_id}"
        async with http.patch(url, data=body, headers={"Content-Type": "application/json"}) as response:
            assert message in await problem_of(response, 400, "BAD_OPTION")
        async with http.get(url) as response:
            assert (await response.json())["mode"] == "mask"


HEADS: dict[str, bytes] = {
    "a long target": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a long field": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 9000 + b"\r\n\r\n",
    "a long name": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"y" * 9000 + b": 1\r\n\r\n",
    "many fields": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    "no HTTP": b"\x16\x03\x01 garbage\r\n\r\n",
    "an encoding": b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Encoding: snappy\r\nContent-Type: image/png\r\n"
    b"Content-Length: 3\r\n\r\nabc",
    "a compressed body that is none": b"POST /v1/segment HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n"
    b"Content-Type: image/png\r\nContent-Length: 3\r\n\r\nabc",
}


@pytest.mark.parametrize("name", HEADS)
async def test_a_request_that_cannot_be_read_is_answered_with_a_problem_too(service: RunningService, name: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.http_port)
    writer.write(HEADS[name])
    try:
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)).decode()
        length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
        document = json.loads(await reader.readexactly(length))
    finally:
        writer.close()
    status = int(head.split(" ", 2)[1])
    assert 400 <= status < 500
    assert "content-type: application/problem+json" in head.lower()
    assert (document["status"], document["type"]) == (status, f"urn:portrait:{document['title']}")
    assert len(document["detail"]) < 1000


async def test_a_background_can_come_as_a_data_url(service: RunningService, http: aiohttp.ClientSession) -> None:
    url = "data:image/jpeg;base64," + base64.b64encode(encoded(room(2000, 2000))).decode()
    assert len(url) > MOST_BYTES  # the JSON beside it has this bound
    body = json.dumps({"mode": "image", "background": url})
    async with Client(f"127.0.0.1:{service.grpc_port}") as client, client.open_stream() as stream:
        target = f"/v1/sessions/{stream.info.session_id}"
        headers = {"Content-Type": "application/json"}
        for text in (body, body.replace("/", "\\/")):  # some encoders write slashes so
            async with http.patch(target, data=io.BytesIO(text.encode()), headers=headers) as response:
                assert (await response.json())["mode"] == "image"
            async with http.patch(target, json={"mode": "mask"}) as response:
                assert (await response.json())["mode"] == "mask"


def test_a_change_is_parsed_without_its_picture() -> None:
    """The parser holds the lock of the interpreter: what it is spared, everything else in the process is."""
    url = "data:image/jpeg;base64," + base64.b64encode(bytes(24 * 2**20)).decode()
    body = json.dumps({"mode": "image", "background": url}).encode()
    taken = []
    for parse in (json.loads, read_change):
        started = time.thread_time()
        parse(body)
        taken.append(time.thread_time() - started)
    assert taken[1] < taken[0] / 2


@pytest.mark.parametrize(
    "body",
    ['{"mode": "data:,QUJD"}', '{"color": "data:,QUJD", "background": "dusk"}', '{"background": "data:"}', '"data:'],
)
async def test_a_data_url_that_is_no_background_is_refused(
    service: RunningService, http: aiohttp.ClientSession, body: str
) -> None:
    async with Client(f"127.0.0.1:{service.grpc_port}") as client, client.open_stream() as stream:
        target = f"/v1/sessions/{stream.info.session_id}"
        async with http.patch(target, data=body, headers={"Content-Type": "application/json"}) as response:
            assert response.status in (400, 422)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"mode": [' + "[]," * 2**18 + "0]}", "bytes besides the background's, expected at most 65536"),
        ('{"mode": [' + "[]," * 2**12 + "0]}", "got 4097 members, expected a JSON object with any of mode,"),
        ('{"mode": "' + "x" * 2**15 + '"}', "expected one of"),
        ('{"color": "' + "x" * 2**15 + '"}', "expected #rrggbb"),
        ('{"framing": "' + "x" * 2**15 + '"}', "expected true or false"),
        ('{"background": "' + "x" * 2**15 + '"}', "expected one of"),
    ],
)
async def test_a_huge_change_is_refused_in_a_sentence(
    service: RunningService, http: aiohttp.ClientSession, body: str, said: str
) -> None:
    async with Client(f"127.0.0.1:{service.grpc_port}") as client, client.open_stream() as stream:
        target = f"/v1/sessions/{stream.info.session_id}"
        async with http.patch(target, data=body, headers={"Content-Type": "application/json"}) as response:
            detail = await problem_of(response, 400, "BAD_OPTION")
    assert said in detail
    assert len(detail) < 1000


async def test_a_change_that_comes_while_a_background_is_decoded_holds(
    service: RunningService, http: aiohttp.ClientSession
) -> None:
    url = "data:image/jpeg;base64," + base64.b64encode(encoded(room(64, 64))).decode()
    entered, let_through = threading.Event(), threading.Event()

    def slow(data: bytes) -> Frame:
        entered.set()
        assert let_through.wait(60)
        return load_background(data)

    async with Client(f"127.0.0.1:{service.grpc_port}") as client, client.open_stream() as stream:
        target = f"/v1/sessions/{stream.info.session_id}"
        with patch("portrait.image.backgrounds.load_background", slow):
            changing = asyncio.create_task(http.patch(target, json={"mode": "image", "background": url}))
            assert await asyncio.to_thread(entered.wait, 60)
            async with http.patch(target, json={"color": "#ff0000"}) as response:
                assert response.status == 200
            let_through.set()
            async with await changing as response:
                changed = await response.json()
    assert (changed["mode"], changed["color"]) == ("image", "#ff0000")


async def test_unknown_sessions_paths_and_methods_are_problems(http: aiohttp.ClientSession) -> None:
    for method in ("GET", "DELETE", "PATCH"):
        async with http.request(method, "/v1/sessions/nobody", json={}) as response:
            await problem_of(response, 404, "NO_SUCH_SESSION")
    async with http.get("/nowhere") as response:
        await problem_of(response, 404, "NOT_FOUND")
    async with http.get("/v1/segment") as response:
        assert response.headers["Allow"] == "POST"
        await problem_of(response, 405, "METHOD_NOT_ALLOWED")


async def test_ready_until_the_service_drains_and_alive_all_along(
    service: RunningService, http: aiohttp.ClientSession
) -> None:
    async with http.get("/readyz") as response:
        assert response.status == 200
    await service.sessions.drain(0)
    async with http.get("/readyz") as response:
        assert response.status == 503
    async with http.get("/healthz") as response:
        assert response.status == 200


async def test_the_page_its_modules_and_its_backgrounds_are_served(http: aiohttp.ClientSession) -> None:
    for path, content_type in [
        ("/", "text/html"),
        ("/web/portrait.js", "javascript"),
        ("/web/page.js", "javascript"),
        ("/web/page.css", "text/css"),
        ("/v1/backgrounds/dusk", "image/jpeg"),
    ]:
        async with http.get(path) as response:
            assert response.status == 200
            assert response.content_type.endswith(content_type)
            assert "default-src 'self'" in response.headers["Content-Security-Policy"]
    async with http.get("/v1/backgrounds") as response:
        assert set(await response.json()) >= {"dusk", "office", "studio"}
    async with http.get("/v1/models") as response:
        assert [model["name"] for model in await response.json() if model["default"]] == ["portrait"]
    async with http.get("/v1/modes") as response:
        shows = ["mask", "alpha", "blur", "color", "image", "cutout"]
        assert await response.json() == [*shows, "silhouette", "pixelate", "blur-person"]


@pytest.mark.parametrize("path", ["/", "/portrait.js", "/web/page.js", "/litert/index.js", "/models/portrait.tflite"])
async def test_no_page_is_made_of_two_versions(http: aiohttp.ClientSession, path: str) -> None:
    """A browser that has a file asks before it uses it again, and is told in a word that it is still the one."""
    async with http.get(path) as response:
        assert response.headers["Cache-Control"] == "no-cache"
        tag = response.headers["ETag"]
    async with http.get(path, headers={"If-None-Match": tag}) as response:
        assert (response.status, await response.read()) == (304, b"")
        assert response.headers["Cache-Control"] == "no-cache"


async def test_the_box_tells_a_page_how_to_use_it_elsewhere(
    service: RunningService, http: aiohttp.ClientSession
) -> None:
    async with http.get("/v1/about") as response:
        assert await response.json() == {
            "version": __version__,
            "grpc_port": service.grpc_port,
            "tls": False,
            "authority": False,
            "token": False,
            "max_body_bytes": service.settings.max_still_bytes,
            "max_background_pixels": 25_000_000,
        }


async def samples(http: aiohttp.ClientSession) -> dict[tuple[str, tuple[str, ...]], float]:
    async with http.get("/metrics") as response:
        assert response.status == 200
        text = await response.text()
    return {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_count_what_happened(service: RunningService, http: aiohttp.ClientSession) -> None:
    async with Client(f"127.0.0.1:{service.grpc_port}") as client, client.open_stream(every_frame=True) as stream:
        for i, data in enumerate([encoded(SHOWN.frames[0]), encoded(SHOWN.frames[0]), b"hello"]):
            await stream.send(Picture.jpeg(data), i)
            await stream.receive()
        during = await samples(http)
    await service.sessions.drain(60)
    after = await samples(http)
    assert during[("portrait_sessions", ("grpc",))] == 1
    assert after[("portrait_sessions", ("grpc",))] == 0
    assert after[("portrait_sessions_opened_total", ("grpc",))] == 1
    assert after[("portrait_frames_total", ("", "done", "grpc"))] == 2
    assert after[("portrait_frames_total", ("bad_picture", "grpc", "refused"))] == 1
    assert after[("portrait_frame_age_seconds_count", ("grpc",))] == 2
    assert after[("portrait_stage_seconds_count", ("decode",))] == 3
    assert after[("portrait_stage_seconds_count", ("segment",))] == 2
    assert after[("portrait_stage_seconds_count", ("encode",))] == 2
    assert after[("portrait_cpu_seconds_total", ("segment",))] > 0
    assert after[("portrait_sessions_limit", ())] == 4
    assert not [name for name, labels in after if stream.info.session_id in labels]


async def test_metrics_speak_openmetrics_when_asked(http: aiohttp.ClientSession) -> None:
    async with http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}) as response:
        assert response.content_type == "application/openmetrics-text"
        assert (await response.text()).endswith("# EOF\n")
