"""WHIP and WHEP clients of the tests: publishers and viewers."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiortc import MediaStreamTrack

from tests.fakes import FakeModel, full_mask
from tests.people import Clip, clip
from tests.rtc import SIZE, Camera, Viewer, fake_service, viewer

ENDPOINTS = ("/webrtc", "/whip/desk", "/whep/desk", "/whep/desk/mask")
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


@pytest.fixture(scope="module")
def shown() -> Clip:
    return clip(*SIZE, 30)


@asynccontextmanager
async def publisher(url: str, shown: Clip, *more: MediaStreamTrack) -> AsyncIterator[Viewer]:
    """A publisher that has not connected yet."""
    async with viewer(url) as one:
        for track in (Camera(shown), *more):
            one.pc.addTransceiver(track, direction="sendonly")
        yield one


@asynccontextmanager
async def watcher(url: str) -> AsyncIterator[Viewer]:
    """A viewer that has not connected yet."""
    async with viewer(url) as one:
        one.pc.addTransceiver("video", direction="recvonly")
        yield one


@asynccontextmanager
async def published(shown: Clip, **options: object) -> AsyncIterator[tuple[str, Viewer, Viewer]]:
    """A service, one that publishes and one that watches; both are connected."""
    async with (
        fake_service(FakeModel(full_mask), **options) as (url, _),  # type: ignore[arg-type]
        publisher(url, shown) as one,
        watcher(url) as two,
    ):
        await one.connect("/whip/desk")
        await two.connect("/whep/desk")
        yield url, one, two


# Create


def trickled(one: Viewer) -> str:
    """A fragment with a candidate that works, one behind mDNS and one that is none."""
    sdp = one.pc.localDescription.sdp
    lines = [re.search(f"a={name}:.*", sdp)[0].strip() for name in ("ice-ufrag", "ice-pwd", "mid")]  # type: ignore[index]
    candidate = re.search("a=candidate:.*", sdp)[0].strip()  # type: ignore[index]
    mdns = "a=candidate:1 1 udp 2113937151 0b3a.local 51234 typ host"
    return "\r\n".join([*lines, candidate, mdns, "a=candidate:nonsense", "a=end-of-candidates", ""])
