"""POST /v1/segment: a picture up, its result down, and every refusal as problem+json."""

import asyncio
import math
from typing import Any

import aiohttp
import cv2
import numpy as np
import pytest

from portrait.admission.pixel_budget import WEBP_PIXELS
from portrait.server.app import run_service
from portrait.settings import Settings
from tests.claims import png
from tests.people import iou, room
from tests.posts import SHOWN, encoded, form, http, picture_of, problem_of

__all__ = ["http"]  # a fixture


@pytest.mark.parametrize("size", [(640, 360), (333, 501), (1, 1)])
@pytest.mark.parametrize(
    ("mode", "channels"), [("mask", 1), ("alpha", 1), ("blur", 3), ("color", 3), ("cutout", 4), ("pixelate", 3)]
)
async def test_a_still_comes_back_at_its_own_size(
    http: aiohttp.ClientSession, mode: str, channels: int, size: tuple[int, int]
) -> None:
    data = encoded(np.asarray(cv2.resize(SHOWN.frames[0], size), np.uint8))
    async with http.post(f"/v1/segment?mode={mode}", data=form(data)) as response:
        assert response.content_type == "image/png"
        result = await picture_of(response)
    assert result.shape == (size[::-1] if channels == 1 else (*size[::-1], channels))


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
        ("image/webp;q=0.5, image/jpeg", "image/jpeg"),
        ("image/webp; q=0.5, */*;q=0.1", "image/webp"),
        ("image/png;q=0, */*", "image/webp"),
        ("image/avif, image/*;q=0.8", "image/png"),
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
        assert "expected one of image/png, image/webp for mode cutout" in await problem_of(
            response, 406, "NOT_ACCEPTABLE"
        )


async def test_results_of_large_pictures_are_never_webp(http: aiohttp.ClientSession) -> None:
    side = math.isqrt(WEBP_PIXELS) + 1
    data = encoded(np.full((side, side, 3), 90, np.uint8), ".png")
    accepted = {"Accept": "image/webp,*/*"}
    async with http.post("/v1/segment?mode=blur", data=form(data), headers=accepted) as response:
        assert response.content_type == "image/png"
        assert (await picture_of(response)).shape == (side, side, 3)
    async with http.post("/v1/segment?mode=blur", data=form(data), headers={"Accept": "image/webp"}) as response:
        problem = await problem_of(response, 406, "NOT_ACCEPTABLE")
    assert f"for mode blur and {side * side} pixels (WebP: at most {WEBP_PIXELS})" in problem


async def test_what_accept_excludes_is_not_sent(http: aiohttp.ClientSession) -> None:
    headers = {"Accept": "image/png;q=0, image/webp;q=0.0, text/html"}
    async with http.post("/v1/segment", data=form(encoded(SHOWN.frames[0])), headers=headers) as response:
        await problem_of(response, 406, "NOT_ACCEPTABLE")


@pytest.mark.parametrize("background", ["dusk", encoded(np.full((40, 40, 3), (0, 0, 255), np.uint8), ".png")])
async def test_a_background_is_a_name_or_a_file(http: aiohttp.ClientSession, background: str | bytes) -> None:
    fields = form(encoded(SHOWN.frames[0]), mode="image", background=background)
    async with http.post("/v1/segment", data=fields) as response:
        corner = (await picture_of(response))[4:20, 4:20].reshape(-1, 3).mean(axis=0)
    camera = SHOWN.frames[0][4:20, 4:20].reshape(-1, 3).mean(axis=0)
    assert np.abs(corner - camera).max() > 30


BAD_STILLS: dict[str, tuple[bytes, str]] = {
    "no picture": (b"hello", "got 5 bytes that are no picture, expected one of JPEG, PNG, WEBP"),
    "cut short": (encoded(room(320, 240))[:5000], "damaged or cut short after 5000 bytes"),
    "0x0": (png(0, 0), "got 0x0, expected at least 1x1"),
    "a huge header": (png(20_000, 20_000), "400000000 pixels"),
    "a large header": (png(6_000, 6_000), "6000x6000 is 36000000 pixels; expected at most 25000000"),
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
        ({"mode": "color", "color": "green"}, 400, "BAD_OPTION", "got 'green', expected #rrggbb"),
        ({"mode": "image"}, 400, "BAD_OPTION", "got mode image without a background"),
        ({"mode": "image", "background": "../../etc/passwd"}, 400, "BAD_OPTION", "unknown background"),
        ({"mode": "image", "background": b"hello"}, 422, "BAD_PICTURE", "background: got 5 bytes that are no picture"),
        ({"moed": "blur"}, 400, "BAD_OPTION", "moed: unknown field, expected one of image, mode"),
    ],
)
async def test_bad_fields_are_refused_naming_them(
    http: aiohttp.ClientSession, fields: dict[str, Any], status: int, reason: str, message: str
) -> None:
    async with http.post("/v1/segment", data=form(encoded(SHOWN.frames[0]), **fields)) as response:
        assert message in await problem_of(response, status, reason)


def browser_form(*parts: tuple[str, bytes]) -> dict[str, Any]:
    """The body and headers of a form as browsers send it; `image` is filled in."""
    image = ('form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg', encoded(SHOWN.frames[0]))
    boundary = "----WebKitFormBoundary0"
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: {head}\r\n\r\n".encode() + data + b"\r\n"
        for head, data in (image, *parts)
    )
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return {"data": body + f"--{boundary}--\r\n".encode(), "headers": headers}


NO_FILE = ('form-data; name="background"; filename=""\r\nContent-Type: application/octet-stream', b"")


@pytest.mark.parametrize("name", ["mode", "color", "background", "threshold", "feather", "framing", "model"])
async def test_a_field_that_is_left_empty_is_as_if_it_were_absent(http: aiohttp.ClientSession, name: str) -> None:
    empty = NO_FILE if name == "background" else (f'form-data; name="{name}"', b"")
    async with http.post("/v1/segment", **browser_form(empty)) as response:
        assert (await picture_of(response)).shape == (360, 640, 4)
    async with http.post(f"/v1/segment?{name}=", **browser_form()) as response:
        assert (await picture_of(response)).shape == (360, 640, 4)


async def test_a_ticked_checkbox_is_true(http: aiohttp.ClientSession) -> None:
    pictures = []
    for value in (b"on", b"true", b"false"):
        fields = browser_form(('form-data; name="mode"', b"color"), ('form-data; name="decontaminate"', value))
        async with http.post("/v1/segment", **fields) as response:
            pictures.append((await picture_of(response)).tobytes())
    assert pictures[0] == pictures[1] != pictures[2]
    async with http.post("/v1/segment", **browser_form(('form-data; name="mode"', b"on"))) as response:
        await problem_of(response, 400, "BAD_OPTION")


async def test_a_form_without_a_chosen_image_is_refused_and_an_empty_file_too(http: aiohttp.ClientSession) -> None:
    nothing = b'--x\r\nContent-Disposition: form-data; name="image"; filename="%s"\r\n\r\n\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with http.post("/v1/segment", data=nothing % b"", headers=headers) as response:
        assert "image: the field is missing" in await problem_of(response, 422, "BAD_PICTURE")
    async with http.post("/v1/segment", data=nothing % b"a.jpg", headers=headers) as response:
        assert "0 bytes that are no picture" in await problem_of(response, 422, "BAD_PICTURE")


async def test_a_request_without_a_form_or_an_image_is_refused(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/segment", json={}) as response:
        assert "got application/json, expected multipart" in await problem_of(response, 415, "UNSUPPORTED_MEDIA_TYPE")
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


async def test_many_stills_at_once_do_not_disturb_each_other(http: aiohttp.ClientSession) -> None:
    async def one() -> bytes:
        async with http.post("/v1/segment?mode=mask", data=form(encoded(SHOWN.frames[0]))) as response:
            assert response.status == 200
            return await response.read()

    assert len(set(await asyncio.gather(*(one() for _ in range(4))))) == 1
