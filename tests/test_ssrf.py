"""Requests that point elsewhere, sent to a real box: it asks nobody. A listener waits at the address that they name."""

import asyncio
import json
import time
from asyncio import timeout
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import jwt
import pytest

from portrait.v1 import segmentation_pb2 as pb
from portrait.v1 import segmentation_pb2_grpc as pb_grpc
from tests.boxes import serving
from tests.calls import jpeg
from tests.people import clip, room
from tests.rtc import SIZE, Camera, viewer

SECRET = b"kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
CANDIDATES = "".join(
    f"a=candidate:{number} 1 {way} {number} {host} {{port}} typ {kind}\r\n"
    for number, (way, host, kind) in enumerate(
        [
            ("tcp", "127.0.0.1", "host tcptype passive"),
            ("tcp", "127.0.0.1", "srflx raddr 0.0.0.0 rport 9 tcptype passive"),
            ("tcp", "localhost", "host tcptype so"),
            ("udp", "localhost", "host"),
        ],
        start=1,
    )
)


@asynccontextmanager
async def elsewhere() -> AsyncIterator[tuple[int, list[str]]]:
    """The port of a listener, and who has come to it."""
    came: list[str] = []

    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(str(writer.get_extra_info("peername")))
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], came


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    octets = jwt.utils.base64url_encode(SECRET).decode()
    path.write_text(json.dumps({"keys": [{"kty": "oct", "alg": "HS256", "kid": "k", "k": octets}]}))
    return path


def tokens(url: str) -> list[str]:
    """One that holds, and others that do not; each says that its key is to be fetched."""
    claims = {"sub": "camera", "exp": int(time.time()) + 600}
    headers = {"jku": url, "x5u": url, "kid": url}
    return [
        jwt.encode(claims, SECRET, "HS256", {"jku": url, "x5u": url, "kid": "k"}),
        jwt.encode(claims, SECRET, "HS256", headers),
        jwt.encode(claims, b"x" * 32, "HS256", headers),
        jwt.encode({**claims, "iss": url}, b"x" * 32, "HS256", {"jku": url}),
    ]


def form(url: str) -> aiohttp.FormData:
    data = aiohttp.FormData({"mode": "image", "background": url})
    data.add_field("image", jpeg(room(64, 48)).message.data, filename="a.jpg")
    return data


async def ask_http(page: str, url: str, token: str) -> None:
    bearer = {"Authorization": f"Bearer {token}"}
    sdp = {**bearer, "Content-Type": "application/sdp", "Origin": url, "Referer": url, "X-Forwarded-Host": url[7:]}
    async with aiohttp.ClientSession() as http:
        for query in ({"mode": "image", "background": url}, {"model": url}, {"mode": url, "color": url}):
            for path in ("webrtc", "whip/desk", "whep/desk", "v1/segment"):
                async with http.post(page + path, params=query, data=b"v=0\r\n", headers=sdp) as response:
                    assert 400 <= response.status < 500
        async with http.post(page + "v1/segment", data=form(url), headers=bearer) as response:
            assert response.status == 400
        for path in ("v1/backgrounds/", "models/", "web/", "v1/sessions/", ""):
            async with http.get(page + path + url, headers=bearer | {"Host": url[7:]}) as response:
                assert 400 <= response.status < 500, path


async def ask_for_a_proxy(page: str, url: str) -> None:
    """The whole address in the request line, as a proxy is asked, and its CONNECT."""
    host, _, port = page.removeprefix("http://").rstrip("/").rpartition(":")
    for line in (f"GET {url} HTTP/1.1", f"CONNECT {url[7:]} HTTP/1.1"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"{line}\r\nHost: {url[7:]}\r\nConnection: close\r\n\r\n".encode())
        await asyncio.wait_for(reader.read(), 60)
        writer.close()


async def ask_webrtc(page: str, url: str, token: str) -> None:
    """With candidates that are connected to, and names that are looked up; then with a background to fetch."""
    async with viewer(page.rstrip("/"), Camera(clip(*SIZE, 5))) as one:
        one.http.headers["Authorization"] = f"Bearer {token}"
        named = CANDIDATES.format(port=url.rpartition(":")[2])
        async with await one.post(await one.offer() + named) as response:
            assert response.status == 201
            await one.take(await response.text())
            location = one.url + response.headers["Location"]
        await one.frame()
        for changes in ({"mode": "image", "background": url}, {"background": f"file://{url[7:]}"}):
            async with one.http.patch(location, json=changes) as refused:
                assert refused.status == 400


async def ask_grpc(target: str, url: str, token: str) -> None:
    image = jpeg(room(64, 48)).message
    metadata = [("authorization", f"Bearer {token}"), ("origin", url), ("x-forwarded-host", url)]
    output = pb.Output(mode="image", background_name=url)
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = pb_grpc.SegmentationServiceStub(channel)
        for request in (
            pb.SegmentRequest(picture=image, output=output),
            pb.SegmentRequest(picture=image, model=url),
            pb.SegmentRequest(picture=image, output=pb.Output(mode="image", background_picture=url.encode())),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Segment(request, metadata=metadata, timeout=60)
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_nothing_a_client_says_makes_the_box_ask_elsewhere(keys: Path) -> None:
    with serving("--workers", "1", "--jwt-keys", str(keys)) as (_, told):
        async with elsewhere() as (port, came):
            url = f"http://127.0.0.1:{port}"
            good, *bad = tokens(url)
            async with aiohttp.ClientSession() as http:
                for token, status in ((good, 200), *((each, 401) for each in bad)):
                    headers = {"Authorization": f"Bearer {token}"}
                    async with http.get(told["page"] + "v1/models", headers=headers) as response:
                        assert response.status == status, token
            await ask_http(told["page"], url, good)
            await ask_for_a_proxy(told["page"], url)
            await ask_webrtc(told["page"], url, good)
            await ask_grpc(told["grpc"], url, good)
            await asyncio.sleep(0.5)
            assert came == []
            # The listener would have seen it.
            (await asyncio.open_connection("127.0.0.1", port))[1].close()
            async with timeout(60):
                while not came:
                    await asyncio.sleep(0.01)
