"""Requests, forms and JSON that no client would send: never a 500, and nothing is left of them."""

import asyncio
import contextlib
import itertools
import random
from asyncio import timeout
from collections import Counter
from typing import Any

import aiohttp
import pytest

from portrait.server.app import RunningService
from tests.fakes import FakeModel, full_mask
from tests.mutations import mutated_bytes, rounds
from tests.people import clip
from tests.rtc import SIZE, Camera, fake_service, viewer

pytestmark = pytest.mark.usefixtures("no_sockets_left", "any_rate")

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "CONNECT", "BREW", "get"]
TARGETS = [
    "/", "/web/page.js", "/web/../../settings.py", "/web/%2e%2e/%2e%2e/settings.py", "/web//etc/passwd", "/metrics",
    "/litert/..%2f..%2f..%2fsettings.py", "/web/..%2f..%2fsettings.py",
    "/v1/backgrounds/../../../etc/passwd", "/v1/backgrounds/..%2f..%2fcli", "/v1/backgrounds/office.jpg", "/readyz",
    "/v1/sessions/..", "/v1/sessions/" + "9" * 7000, "/whip/" + "a" * 7000, "/whip/..%2f..%00", "/whip/%ff%fe", "//",
    "/v1/segment?mode=%00", "/v1/segment?mode=blur&mode=mask&color=%23", "http://10.0.0.1/", "/v1/sessions/1-x",
    "/web/" + "a" * 7000, "/web/page/" + "a" * 300, "/litert/" + "a" * 300, "/web/a%00b", "/litert/..",
    "*", "/webrtc?model=../../etc/passwd&background=http://10.0.0.1/", "/v1/viewers/x", "/" + "a" * 9000,
]  # fmt: skip
HEADERS = [
    "Content-Length: 5", "Content-Length: -1", "Content-Length: 99999999999", "Transfer-Encoding: chunked",
    "Transfer-Encoding: chunked, identity", "Content-Type: application/sdp", "Content-Type: multipart/form-data",
    "Content-Type: multipart/form-data; boundary=x", "Content-Type: application/json", "Content-Encoding: gzip",
    "Content-Encoding: br", "Expect: 100-continue", "Range: bytes=-1", "Range: bytes=0-1,2-3,4-", "If-Match: *",
    "Connection: upgrade", "Upgrade: websocket", "Upgrade: h2c", "Host: evil.example", "X: " + "y" * 9000,
    "Authorization: Bearer \x00", "Authorization: Basic !!!", "Accept: " + "a/b," * 1500, "traceparent: 00-zz-zz-zz",
    "Accept: \xff\xfe", "If-Match: \xff", "Authorization: Bearer \xff", "traceparent: \xff", "Expect: 200-maybe",
    "Cookie: " + "a=b;" * 1000, "X-Portrait-Remote: 10.0.0.1", "Origin: null", "X-Forwarded-For: 1.2.3.4",
]  # fmt: skip
BODIES = [
    b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n", b"--x\r\n\r\n\r\n--x--", b"[" * 5000,
    b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nabc\r\n--x--\r\n', b'{"mode":"\\ud800"}', b"v=0\r\n",
]  # fmt: skip


def request_of(dice: random.Random) -> bytes:
    """More often than not one that gets past the parser."""
    version = dice.choice(["HTTP/1.1"] * 6 + ["HTTP/1.0", "HTTP/9.9", ""])
    head = [
        f"{dice.choice(METHODS)} {dice.choice(TARGETS)} {version}",
        *dice.sample(HEADERS, dice.choice([0, 1, 1, 3])),
    ]
    body = dice.choice(BODIES)
    if not any("Host:" in line for line in head):
        head.append("Host: box")
    if dice.random() < 0.8 and not any("Content-Length" in line or "chunked" in line for line in head):
        head.append(f"Content-Length: {len(body)}")
    data = "\r\n".join([*head, "Connection: close", "", ""]).encode("latin-1") + body
    return mutated_bytes(data, dice) if dice.random() < 0.2 else data


async def answer_to(port: int, data: bytes, seconds: float = 1.0) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        answer = bytearray()
        with contextlib.suppress(ConnectionError, TimeoutError):  # a request without an end has no answer
            async with timeout(seconds):
                while chunk := await reader.read(2**16):
                    answer += chunk
        return bytes(answer)
    finally:
        writer.close()


@pytest.mark.filterwarnings("ignore::aiohttp.BadContentDispositionHeader", "ignore::aiohttp.BadContentDispositionParam")
async def test_no_request_does_anything_but_be_answered_or_refused(service: RunningService) -> None:
    told = Counter[str]()
    plain = [f"GET {target} HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n".encode() for target in TARGETS]
    requests = map(request_of, rounds(least=300))
    some, seconds = plain, 60.0
    # Many at a time: some have no end, and their answers are waited for.
    while some:
        answers = await asyncio.gather(*(answer_to(service.http_port, data, seconds) for data in some))
        for data, answer in zip(some, answers, strict=True):
            status = answer.split(b" ", 2)[1].decode() if answer.startswith(b"HTTP/") else "none"
            told[status] += 1
            assert status == "none" or int(status) < 500 or status in ("501", "503", "505"), (data, answer)
            assert b"root:" not in answer
            assert b"BaseSettings" not in answer
        some, seconds = list(itertools.islice(requests, 100)), 1.0
    print(dict(told))
    assert {"200", "400", "404", "405"} <= set(told)
    async with timeout(60):
        while service.sessions:  # of who was not waited for
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("POST /webrtc HTTP/1.1\r\nContent-Type: application/sdp\r\nAccept: \xff\xfe", 406),
        ("POST /v1/segment HTTP/1.1\r\nContent-Type: image/png\r\nAccept: \xff\xfe", 406),
        ("GET /web/" + "a" * 300 + " HTTP/1.1", 404),
        ("GET /web/page/ HTTP/1.1", 404),
        ("GET /litert/.. HTTP/1.1", 404),
        ("GET /litert/" + "a" * 300 + " HTTP/1.1", 404),
        ("GET /v1/modes HTTP/1.1\r\nExpect: 200-maybe", 417),
        ("GET /nothing HTTP/1.1\r\nExpect: 200-maybe", 417),
    ],
)
async def test_bytes_that_are_no_text_and_names_that_no_file_can_have_are_refused_as_problems(
    service: RunningService, line: str, status: int
) -> None:
    """What a refusal quotes, looks up or hands on may be anything; each was a 500 with a traceback, or plain text."""
    head = f"{line}\r\nHost: box\r\nContent-Length: 1\r\nConnection: close\r\n\r\n"
    answer = await answer_to(service.http_port, head.encode("latin-1") + b"x", 60)
    assert answer.split(b" ", 2)[1] == str(status).encode()
    assert b"content-type: application/problem+json" in answer.lower()


PART = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
FORMS = [
    PART % (b"image", b'; filename="a.jpg"', b"abc") + b"--x--\r\n",
    PART % (b"mode", b"", b"blur") + PART % (b"image", b"", b"abc") + b"--x--\r\n",
    PART % (b"background", b'; filename="../../x"', b"abc") + PART % (b"image", b"", b"abc") + b"--x--\r\n",
    b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n\r\nabc\r\n--y--\r\n--x--\r\n",
]


@pytest.mark.filterwarnings("ignore::aiohttp.BadContentDispositionHeader", "ignore::aiohttp.BadContentDispositionParam")
async def test_no_form_does_anything_but_be_answered_or_refused(service: RunningService) -> None:
    told = Counter[int]()
    url = f"http://127.0.0.1:{service.http_port}/v1/segment"
    async with aiohttp.ClientSession() as http:
        for dice in rounds(least=300):
            body = mutated_bytes(dice.choice(FORMS), dice)
            async with http.post(
                url, data=body, headers={"Content-Type": "multipart/form-data; boundary=x"}
            ) as response:
                assert response.status in (400, 413, 422), (response.status, body)
                told[response.status] += 1
    print(dict(told))
    assert set(told) >= {400, 422}


NESTED: list[Any] = [
    "[" * 100_000,
    '{"a":' * 100_000,
    '{"mode": ' + "9" * 5000 + "}",
    '{"mode": NaN}',
    '"\\ud800"',
    "\0",
]


@pytest.mark.parametrize("text", NESTED, ids=range(len(NESTED)))
async def test_json_of_any_depth_is_refused(text: str) -> None:
    async with fake_service(FakeModel(full_mask)) as (url, _), viewer(url, Camera(clip(*SIZE, 1))) as one:
        await one.connect()
        headers = {"Content-Type": "application/json"}
        async with one.http.patch(one.location, data=text, headers=headers) as response:
            assert response.status == 400, await response.text()
