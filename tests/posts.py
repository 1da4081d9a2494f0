"""HTTP requests of the tests: pictures and forms up, pictures and problems back."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import cv2
import numpy as np
import pytest

from portrait.server.app import RunningService
from tests.people import Array, clip

SHOWN = clip(640, 360, 1)


@pytest.fixture
async def http(service: RunningService) -> AsyncIterator[aiohttp.ClientSession]:
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
