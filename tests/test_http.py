"""HTTP: stills, session resources, metrics, health, and every error as problem+json."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import cv2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from portrait.app import Running, run_service
from portrait.client import Client, Picture
from portrait.settings import Settings
from tests.people import Array, clip, iou, room
from tests.test_pictures import png_header

SHOWN = clip(640, 360, 1)


@pytest.fixture
async def http(service: Running) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{service.http_port}") as session:
        yield session


def encoded(picture: Array, suffix: str = ".jpg") -> bytes:
    return bytes(cv2.imencode(suffix, picture)[1])


def form(image: bytes | None = None, **fields: Any) -> aiohttp.FormData:
    data = aiohttp.FormData(default_to_multipart=True)
    if image is not None:
        data.add_field("image", image, filename="me.jpg", content_type="image/jpeg")
    for name, value in fields.items():
        extra = {"filename": "room.png"} if isinstance(value, bytes) else {}
        data.add_field(name, value, **extra)
    return data


async def picture_of(response: aiohttp.ClientResponse) -> Array:
    assert response.status == 200, await response.text()
    decoded = cv2.imdecode(np.frombuffer(await response.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    return np.asarray(decoded, np.uint8)


async def problem_of(response: aiohttp.ClientResponse, status: int, reason: str) -> str:
    assert response.status == status, await response.text()
    assert response.content_type == "application/problem+json"
    document = await response.json()
    assert document["type"] == f"urn:portrait:{reason}"
    assert document["status"] == status
    return str(document["detail"])


@pytest.mark.parametrize("size", [(640, 360), (333, 501), (1, 1)])
@pytest.mark.parametrize(("mode", "channels"), [("mask", 1), ("alpha", 1), ("blur", 3), ("color", 3), ("cutout", 4)])
async def test_a_still_comes_back_at_its_own_size(
    http: aiohttp.ClientSession, mode: str, channels: int, size: tuple[int, int]
) -> None:
    data = encoded(np.asarray(cv2.resize(SHOWN.frames[0], size), np.uint8))
    async with http.post(f"/v1/segment?mode={mode}", data=form(data)) as response:
        assert response.content_type == "image/png"
        result = await picture_of(response)
    assert result.shape == (size[1], size[0]) if channels == 1 else (size[1], size[0], channels)


async def test_a_cutout_keeps_the_person_and_nothing_else(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/segment", data=form(encoded(SHOWN.frames[0]), mode="cutout")) as response:
        result = await picture_of(response)
    assert iou(SHOWN.masks[0], result[..., 3]) > 0.85
    assert not result[result[..., 3] == 0].any()


async def test_the_image_can_be_the_whole_body(http: aiohttp.ClientSession) -> None:
    headers = {"Content-Type": "image/jpeg"}
    async with http.post("/v1/segment?mode=mask", data=encoded(SHOWN.frames[0]), headers=headers) as response:
        assert iou(SHOWN.masks[0], await picture_of(response)) > 0.85


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("image/webp", "image/webp"),
        ("image/jpeg", "image/jpeg"),
        ("text/html,image/png;q=0.9", "image/png"),
        ("*/*", "image/png"),
    ],
)
async def test_accept_chooses_the_format(http: aiohttp.ClientSession, accept: str, content_type: str) -> None:
    request = http.post("/v1/segment?mode=blur", data=form(encoded(SHOWN.frames[0])), headers={"Accept": accept})
    async with request as response:
        assert response.content_type == content_type
        assert (await picture_of(response)).shape == (360, 640, 3)


async def test_webp_cutouts_have_an_alpha_and_jpeg_ones_are_refused(http: aiohttp.ClientSession) -> None:
    data = encoded(SHOWN.frames[0])
    async with http.post("/v1/segment?mode=cutout", data=form(data), headers={"Accept": "image/webp"}) as response:
        assert (await picture_of(response)).shape == (360, 640, 4)
    async with http.post("/v1/segment?mode=cutout", data=form(data), headers={"Accept": "image/jpeg"}) as response:
        assert "can be image/png, image/webp" in await problem_of(response, 406, "NOT_ACCEPTABLE")


@pytest.mark.parametrize("background", ["dusk", encoded(np.full((40, 40, 3), (0, 0, 255), np.uint8), ".png")])
async def test_a_background_is_a_name_or_a_file(http: aiohttp.ClientSession, background: str | bytes) -> None:
    fields = form(encoded(SHOWN.frames[0]), mode="image", background=background)
    async with http.post("/v1/segment", data=fields) as response:
        corner = (await picture_of(response))[4:20, 4:20].reshape(-1, 3).mean(axis=0)
    camera = SHOWN.frames[0][4:20, 4:20].reshape(-1, 3).mean(axis=0)
    assert np.abs(corner - camera).max() > 30


BAD_STILLS: dict[str, tuple[bytes, str]] = {
    "no picture": (b"hello", "5 bytes that are no picture; expected one of JPEG, PNG, WEBP"),
    "cut short": (encoded(room(320, 240))[:5000], "damaged or cut short after 5000 bytes"),
    "0x0": (png_header(0, 0), "no picture"),
    "a huge header": (png_header(20_000, 20_000), "400000000 pixels"),
    "a large header": (png_header(6_000, 6_000), "6000x6000 is 36000000 pixels; expected at most 25000000"),
}


@pytest.mark.parametrize("name", BAD_STILLS)
async def test_a_bad_still_is_refused_saying_why(http: aiohttp.ClientSession, name: str) -> None:
    data, message = BAD_STILLS[name]
    async with http.post("/v1/segment", data=form(data)) as response:
        assert message in await problem_of(response, 422, "BAD_PICTURE")
    async with http.post("/v1/segment", data=form(encoded(SHOWN.frames[0]))) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("fields", "status", "reason", "message"),
    [
        ({"mode": "sepia"}, 400, "BAD_OPTION", "unknown mode 'sepia'; expected one of"),
        ({"model": "nope"}, 400, "BAD_OPTION", "unknown model 'nope'; expected one of"),
        ({"mode": "color", "color": "green"}, 400, "BAD_OPTION", "'green' is no colour; expected #rrggbb"),
        ({"mode": "image"}, 400, "BAD_OPTION", "mode image was asked for without one"),
        ({"mode": "image", "background": "../../etc/passwd"}, 400, "BAD_OPTION", "unknown background"),
        ({"mode": "image", "background": b"hello"}, 422, "BAD_PICTURE", "background: 5 bytes that are no picture"),
        ({"moed": "blur"}, 400, "BAD_OPTION", "moed: unknown field; expected image, mode"),
    ],
)
async def test_bad_fields_are_refused_naming_them(
    http: aiohttp.ClientSession, fields: dict[str, Any], status: int, reason: str, message: str
) -> None:
    async with http.post("/v1/segment", data=form(encoded(SHOWN.frames[0]), **fields)) as response:
        assert message in await problem_of(response, status, reason)


async def test_a_request_without_a_form_or_an_image_is_refused(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/segment", json={}) as response:
        assert "application/json came; expected multipart" in await problem_of(response, 415, "UNSUPPORTED_MEDIA_TYPE")
    async with http.post("/v1/segment", data=form(mode="blur")) as response:
        assert "image: the field is missing" in await problem_of(response, 422, "BAD_PICTURE")
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with http.post("/v1/segment", data=b"no multipart", headers=headers) as response:
        await problem_of(response, 400, "BAD_OPTION")


@pytest.mark.parametrize(
    "head",
    [b"Content-Disposition form-data", b"\x00: x", b"Content-Disposition: form-data; name=image\r\n : x", b"x" * 9000],
    ids=["no colon", "a zero byte", "a nameless header", "a line too long"],
)
async def test_a_multipart_with_broken_headers_is_refused(http: aiohttp.ClientSession, head: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    body = b"--x\r\n" + head + b"\r\n\r\nhello\r\n--x--\r\n"
    async with http.post("/v1/segment", data=body, headers=headers) as response:
        await problem_of(response, 400, "BAD_OPTION")


async def test_a_body_over_the_limit_is_refused(settings: Settings) -> None:
    small = settings.model_copy(update={"max_still_bytes": 4096})
    async with run_service(small) as running, aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{running.http_port}/v1/segment"
        async with http.post(url, data=form(bytes(10_000))) as response:
            await problem_of(response, 413, "REQUEST_ENTITY_TOO_LARGE")


async def test_a_full_service_refuses_with_a_time_to_try_again(service: Running, http: aiohttp.ClientSession) -> None:
    async with Client(f"127.0.0.1:{service.grpc_port}") as client:
        streams = [client.open_stream() for _ in range(4)]
        for stream in streams:
            await stream.__aenter__()
        async with http.post("/v1/segment", data=form(encoded(SHOWN.frames[0]))) as response:
            assert response.headers["Retry-After"] == "5"
            assert "4 of 4 sessions are open" in await problem_of(response, 503, "TOO_MANY_SESSIONS")
        for stream in streams:
            await stream.__aexit__(None, None, None)


async def test_a_grpc_session_is_seen_changed_and_ended_by_http(service: Running, http: aiohttp.ClientSession) -> None:
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


async def test_the_list_of_sessions_tells_no_whole_id(service: Running, http: aiohttp.ClientSession) -> None:
    async with Client(f"127.0.0.1:{service.grpc_port}") as client, client.open_stream() as stream:
        async with http.get("/v1/sessions") as response:
            listed = await response.json()
        assert len(listed) == 1
        assert stream.info.session_id not in str(listed)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "not JSON"),
        (b"[]", "expected a JSON object with any of mode, color, background, reset"),
        (b'{"moed": "blur"}', "expected a JSON object with any of mode, color, background, reset"),
        (b'{"mode": 3}', "3 is no text"),
        (b'{"reset": "yes"}', "'yes' is neither true nor false"),
        (b'{"mode": "sepia"}', "unknown mode 'sepia'"),
        (b'{"background": "data:image/png;base64,%%%"}', "a data URL that is not base64"),
        (b'{"background": "http://example.com/x.png"}', "unknown background 'http://example.com/x.png'"),
    ],
)
async def test_a_bad_change_is_refused_and_changes_nothing(
    service: Running, http: aiohttp.ClientSession, body: bytes, message: str
) -> None:
    async with Client(f"127.0.0.1:{service.grpc_port}") as client, client.open_stream() as stream:
        url = f"/v1/sessions/{stream.info.session_id}"
        async with http.patch(url, data=body, headers={"Content-Type": "application/json"}) as response:
            assert message in await problem_of(response, 400, "BAD_OPTION")
        async with http.get(url) as response:
            assert (await response.json())["mode"] == "mask"


async def test_a_background_can_come_as_a_data_url(service: Running, http: aiohttp.ClientSession) -> None:
    url = "data:image/jpeg;base64," + base64.b64encode(encoded(room(64, 64))).decode()
    async with Client(f"127.0.0.1:{service.grpc_port}") as client, client.open_stream() as stream:
        target = f"/v1/sessions/{stream.info.session_id}"
        async with http.patch(target, json={"mode": "image", "background": url}) as response:
            assert (await response.json())["mode"] == "image"


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
    service: Running, http: aiohttp.ClientSession
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
        assert await response.json() == ["mask", "alpha", "blur", "color", "image", "cutout"]


async def samples(http: aiohttp.ClientSession) -> dict[tuple[str, tuple[str, ...]], float]:
    async with http.get("/metrics") as response:
        assert response.status == 200
        text = await response.text()
    return {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_count_what_happened(service: Running, http: aiohttp.ClientSession) -> None:
    async with Client(f"127.0.0.1:{service.grpc_port}") as client, client.open_stream(every_frame=True) as stream:
        for i, data in enumerate([encoded(SHOWN.frames[0]), encoded(SHOWN.frames[0]), b"hello"]):
            await stream.send(Picture.jpeg(data), i)
            await stream.receive()
        during = await samples(http)
    await service.sessions.drain(10)
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


async def test_many_stills_at_once_do_not_disturb_each_other(http: aiohttp.ClientSession) -> None:
    async def one() -> bytes:
        async with http.post("/v1/segment?mode=mask", data=form(encoded(SHOWN.frames[0]))) as response:
            assert response.status == 200
            return await response.read()

    assert len(set(await asyncio.gather(*(one() for _ in range(4))))) == 1
