"""`python -m tests.benchmarks.churn`: sessions that come and leave in every ugly way, and what is left of them.

Each picks a transport and a way to leave by chance. Before and after, the service counts its sessions, tasks, threads,
descriptors, UDP ports and memory.
"""

import argparse
import asyncio
import json
import logging
import os
import random
import sys
import time
from asyncio import timeout
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
from aiortc.mediastreams import MediaStreamError

from portrait.workers.environment import THREADS, missing_variables
from tests.benchmarks.processes import jemalloc
from tests.people import Clip, clip
from tests.rtc import SIZE, Camera, Viewer, hang_up, viewer
from tests.tcp_ice import over_tcp
from tests.test_churn import stream

AT_ONCE = 12
HANGS = 60.0
"""Seconds after which a stream counts as one that hangs, and the churn as failed."""

SHARE = 0.02
"""By which memory may have grown at the end: the process's, and what is allocated in it, small objects included."""

COUNTED = ("sessions", "tasks", "threads", "descriptors", "udp_ports")


class Service:
    """A counted service, in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, http: int, grpc: int) -> None:
        self._process = process
        self.page, self.grpc = f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}"

    async def count(self) -> dict[str, int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        counts: dict[str, int] = json.loads(await self._process.stdout.readline())
        return counts

    async def settled(self, seconds: float = 60.0) -> dict[str, int]:
        """The counts once nothing moves any more: nobody is there, and twice the same."""
        deadline, before = time.monotonic() + seconds, await self.count()
        while time.monotonic() < deadline:
            await asyncio.sleep(1.0)
            now = await self.count()
            if not now["sessions"] and all(now[name] == before[name] for name in COUNTED):
                return now
            before = now
        return before


def allocator() -> dict[str, str]:
    """The service's own, with one arena: what is counted is what is held, not where threads left gaps.

    That is jemalloc where there is one, as in the image: `make churn` brings it. In the one heap that glibc grows to
    half a gigabyte for twelve sessions, whatever small thing stays keeps its whole page.
    """
    found = jemalloc()
    return missing_variables({}, found) | {"MALLOC_CONF": "narenas:1"} if found else {"MALLOC_ARENA_MAX": "1"}


@asynccontextmanager
async def counted_service() -> AsyncIterator[Service]:
    environ = os.environ | THREADS | allocator()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.counted", env=environ,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        told = json.loads(await process.stdout.readline())
        yield Service(process, told["http"], told["grpc"])
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 60)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Counted(Viewer):
    """A viewer that counts what it is answered."""

    def __init__(self, url: str, http: aiohttp.ClientSession, statuses: Counter[str]) -> None:
        super().__init__(url, http)
        self._statuses = statuses

    async def post(self, offer: str, path: str = "/webrtc", **query: str) -> aiohttp.ClientResponse:
        response = await super().post(offer, path, **query)
        self._statuses[f"webrtc {response.status}"] += 1
        return response


@asynccontextmanager
async def counted_viewer(url: str, number: int, statuses: Counter[str]) -> AsyncIterator[Counted]:
    """A viewer at an address of its own: how often one may ask is limited."""
    address = (f"127.0.{number // 250 % 250}.{number % 250 + 2}", 0)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=address)) as http:
        one = Counted(url, http, statuses)
        try:
            yield one
        finally:
            await hang_up(one.pc)


# Ways of a WebRTC client to leave. Each has been given an open connection with a camera.


async def _in_order(one: Viewer, dice: random.Random) -> None:
    await one.connect(mode=dice.choice(["blur", "color"]))
    await one.frame()
    async with one.http.delete(one.location):
        pass


async def _closing(one: Viewer, dice: random.Random) -> None:
    await one.connect()
    for _ in range(dice.randrange(4)):
        await one.frame()


async def _without_connecting(one: Viewer, dice: random.Random) -> None:
    async with await one.post(await one.offer()):
        pass


async def _cut_off(one: Viewer, dice: random.Random) -> None:
    """The request is given up before, or as, it is answered."""
    offer = await one.offer()
    with suppress(TimeoutError):
        async with timeout(dice.choice([0.0, 0.005, 0.02, 0.05])), await one.post(offer):
            pass


async def _vanishing(one: Viewer, dice: random.Random) -> None:
    """No goodbye: its sockets are closed under the connection."""
    await one.connect()
    await one.frame()
    for transceiver in one.pc.getTransceivers():
        ice = transceiver.receiver.transport.transport
        for protocol in ice._connection._protocols:
            protocol.transport.abort()


async def _refused(one: Viewer, dice: random.Random) -> None:
    offer = await one.offer()
    async with await one.post(dice.choice(["", "v=0\r\n", offer[: len(offer) // 2], offer.replace("video", "audio")])):
        pass


async def _publishing(one: Viewer, dice: random.Random) -> None:
    name = f"stream{dice.randrange(10**9)}"
    await one.connect(f"/whip/{name}")
    async with viewer(one.url) as other:
        other.pc.addTransceiver("video", direction="recvonly")
        with suppress(AssertionError):  # the publisher may be gone already
            await other.connect(f"/whep/{name}")
            if dice.random() < 0.5:
                await other.frame()


async def _freezing(one: Viewer, dice: random.Random) -> None:
    await one.connect()
    await one.frame()
    one.pc.getSenders()[0].replaceTrack(None)
    await asyncio.sleep(dice.choice([0.1, 3.5]))


async def _over_tcp(one: Viewer, dice: random.Random) -> None:
    """Without a goodbye every other time."""
    async with await one.post(await one.offer()) as response:
        if response.status != 201:
            return
        await one.take(await over_tcp(one.pc, await response.text()))
    await one.frame()
    if dice.random() < 0.5:
        for transport in one.pc._RTCPeerConnection__iceTransports:  # type: ignore[attr-defined]
            for protocol in transport._connection._protocols:
                protocol.transport.abort()


LEAVING: list[Callable[[Viewer, random.Random], Awaitable[None]]] = [
    _in_order, _closing, _without_connecting, _cut_off, _vanishing, _refused, _publishing, _freezing, _over_tcp,
]  # fmt: skip


async def one_session(
    service: Service, shown: Clip, dice: random.Random, told: Counter[str], got: Counter[str]
) -> None:
    if dice.random() < 0.5:
        told["grpc"] += 1
        async with timeout(HANGS):
            await stream(service.grpc, dice)
        return
    leave = dice.choice(LEAVING)
    told[f"webrtc {leave.__name__.strip('_').replace('_', ' ')}"] += 1
    # Refused, cut off or ended by the other side: all of these are ways to end.
    with suppress(AssertionError, TimeoutError, aiohttp.ClientError, MediaStreamError):
        async with counted_viewer(service.page, dice.randrange(60_000), got) as one:
            one.pc.addTrack(Camera(shown))
            async with timeout(HANGS):
                await leave(one, dice)


async def churn(service: Service, sessions: int, dice: random.Random, shown: Clip) -> tuple[Counter[str], Counter[str]]:
    """So many, AT_ONCE at a time; how many of each kind, and what WebRTC's were answered."""
    told, got, left = Counter[str](), Counter[str](), iter(range(sessions))

    async def work() -> None:
        for _ in left:
            await one_session(service, shown, random.Random(dice.random()), told, got)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return told, got


async def run(sessions: int, seed: int, batches: int = 1) -> dict[str, Any]:
    """What was there before and after, and what differs by more than it may; memory after each batch."""
    dice, shown, began = random.Random(seed), clip(*SIZE, 10), time.monotonic()
    async with counted_service() as service:
        # Caches, pools and arenas are full after so many; libraries are loaded.
        await churn(service, max(4 * AT_ONCE, sessions // 5), dice, shown)
        before = await service.settled()
        told, got, on_the_way = Counter[str](), Counter[str](), [before]
        for _ in range(batches):
            for total, part in zip((told, got), await churn(service, sessions // batches, dice, shown), strict=True):
                total.update(part)
            after = await service.settled()
            on_the_way.append(after)
    left = [name for name in COUNTED if after[name] > before[name]]
    grown, more = (after[name] / before[name] - 1 for name in ("rss", "allocated"))
    return {
        "sessions": sessions,
        "seed": seed,
        "allocator": "jemalloc" if "LD_PRELOAD" in allocator() else "glibc",
        "seconds": round(time.monotonic() - began, 1),
        "ways": dict(sorted(told.items())),
        "answers": dict(sorted(got.items())),
        "before": before,
        "after": after,
        "rss": [counts["rss"] for counts in on_the_way],
        "allocated": [counts["allocated"] for counts in on_the_way],
        "left": left,
        "rss_grown": round(grown, 4),
        "allocated_grown": round(more, 4),
        "ok": not left and grown <= SHARE and more <= SHARE,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=5000)
    parser.add_argument("--batches", type=int, default=10, help="count that often on the way")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the result there as well, as JSON")
    parsed = parser.parse_args()
    # Those who vanish have their sockets shut under them, and aioice complains of it, on this side.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    result = asyncio.run(run(parsed.sessions, parsed.seed, parsed.batches))
    text = json.dumps(result, indent=2)
    print(text)
    if parsed.out:
        parsed.out.write_text(text + "\n")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
