"""Clients of a cluster behind a balancer, in a network of their own: `python -m tests.deploy.live.cluster_clients`.

Publishes with GStreamer, watches over WHEP and gRPC and streams over gRPC through the balancer alone; kills one pod and
drains another meanwhile. Prints what it measured as JSON.
"""

import argparse
import asyncio
import base64
import ipaddress
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from asyncio import timeout
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp

from portrait.client import Client
from tests import whip_client
from tests.deploy.live.streaming import together
from tests.people import Array, clip, iou
from tests.rtc import Camera, Viewer, viewer
from tests.whip import publisher, watcher

STREAMS = 3
SHOWN = clip(320, 240, 30)


@dataclass(frozen=True)
class Cluster:
    """The balancer, and each pod's own address and process; those are asked and killed, and used for nothing else."""

    http: str
    grpc: str
    pods: dict[str, int]


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 60.0) -> Any:
    """What `condition` gives as soon as it is true."""
    async with timeout(seconds):
        while not (found := await condition()):
            await asyncio.sleep(0.02)
        return found


async def sessions(http: aiohttp.ClientSession, address: str) -> list[dict[str, Any]]:
    """The sessions of one pod; none of one that has gone."""
    with suppress(aiohttp.ClientError, TimeoutError):
        async with http.get(f"http://{address}:8080/v1/sessions", timeout=aiohttp.ClientTimeout(total=1.0)) as answer:
            found: list[dict[str, Any]] = await answer.json()
            return found
    return []


async def forwarded(http: aiohttp.ClientSession, cluster: Cluster, kind: str) -> int:
    """How many requests of a kind the pods have passed on to each other."""
    pattern = rf'^portrait_cluster_forwarded_total\{{kind="{kind}",result="answered"\}} (\S+)'
    total = 0.0
    for address in cluster.pods:
        async with http.get(f"http://{address}:8080/metrics") as answer:
            found = re.search(pattern, await answer.text(), re.MULTILINE)
            total += float(found[1]) if found else 0.0
    return int(total)


def pod_of(location: str) -> bytes:
    """The address in a session's id (cluster/pod_ids.py)."""
    text = location.rpartition(".")[2]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))[:4]


async def publisher_of(http: aiohttp.ClientSession, cluster: Cluster) -> str | None:
    """The pod that has the only WebRTC session there is."""
    for address in cluster.pods:
        if any(one["transport"] == "webrtc" for one in await sessions(http, address)):
            return address
    return None


async def gstreamer(cluster: Cluster, http: aiohttp.ClientSession) -> dict[str, Any]:
    """GStreamer publishes, trickles (PATCH) and leaves (DELETE) through whichever pod the balancer picks."""
    with tempfile.TemporaryDirectory() as folder:
        async with whip_client.publishing(Path(folder), f"{cluster.http}/whip/gstreamer", "none"):
            await until(lambda: publisher_of(http, cluster))
            async with watcher(cluster.http) as two:
                await view(two, "gstreamer")
                await two.until(lambda picture: picture[10, 10, 2] > 150)  # red, blurred
    began = time.monotonic()

    async def gone() -> bool:
        return await publisher_of(http, cluster) is None

    await until(gone)
    return {"gone_after_delete": time.monotonic() - began}


async def view(one: Viewer, name: str) -> None:
    """Connect a viewer; a stream that has just begun may be unknown to a pod for half a second."""
    offer = await one.offer()

    async def connected() -> bool:
        response = await one.post(offer, f"/whep/{name}")
        if response.status != 201:
            return False
        one.location, one.etag = one.url + response.headers["Location"], response.headers["ETag"]
        await one.take(await response.text())
        return True

    await until(connected)


async def later_requests(cluster: Cluster, http: aiohttp.ClientSession) -> dict[str, Any]:
    """PATCH, GET and DELETE of a session, each over a connection of its own."""
    async with viewer(cluster.http, Camera(SHOWN)) as one:
        await one.connect(mode="color", color="#ff0000")
        statuses = []
        for _ in range(12):
            async with aiohttp.ClientSession() as fresh, fresh.patch(one.location, json={"mode": "mask"}) as answer:
                statuses.append(answer.status)
        async with aiohttp.ClientSession() as fresh, fresh.delete(one.location) as answer:
            statuses.append(answer.status)
        return {"statuses": sorted(set(statuses)), "passed_on": await forwarded(http, cluster, "session")}


class Stream:
    """A gRPC stream that goes on by itself, and when each of its masks came."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.masks: list[Array] = []

    async def run(self, target: str) -> None:
        async def camera() -> AsyncIterator[Array]:
            while True:
                yield SHOWN.frames[0]
                await asyncio.sleep(0.05)

        async with Client(target) as client, aclosing(client.stream(camera(), every_frame=True)) as replies:
            async for reply in replies:
                self.times.append(time.monotonic())
                self.masks.append(reply.array)

    def longest_gap(self, since: float) -> float:
        return max(b - a for a, b in pairwise(self.times) if b >= since)


@asynccontextmanager
async def streaming(cluster: Cluster) -> AsyncIterator[list[Stream]]:
    """Streams for the length of the block."""
    streams = [Stream() for _ in range(STREAMS)]

    async def begun() -> bool:
        return all(len(one.masks) > 20 for one in streams)

    async with together(*(one.run(cluster.grpc) for one in streams)):
        await until(begun)
        yield streams


@contextmanager
def measured(streams: list[Stream], result: dict[str, Any]) -> Iterator[None]:
    """The longest time without a mask from now on, and how far a mask was from the one before the trouble."""
    began, before = time.monotonic(), [one.masks[-1] for one in streams]
    counts = [len(one.masks) for one in streams]
    yield
    result["longest_gap"] = max(one.longest_gap(began) for one in streams)
    result["least_iou"] = min(
        iou(mask, later)
        for one, mask, count in zip(streams, before, counts, strict=True)
        for later in one.masks[count:]
    )


async def more_masks(streams: list[Stream], count: int) -> None:
    """Wait until each stream has so many more."""
    wanted = [len(one.masks) + count for one in streams]

    async def there() -> bool:
        return all(len(one.masks) >= least for one, least in zip(streams, wanted, strict=True))

    await until(there)


async def killed(cluster: Cluster, http: aiohttp.ClientSession) -> dict[str, Any]:
    """A pod is killed that publishes a stream and has gRPC streams: everybody comes back through the balancer."""
    result: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(publisher(cluster.http, SHOWN))
        await one.connect("/whip/hall", mode="color", color="#ff0000")
        two = await stack.enter_async_context(watcher(cluster.http))
        await view(two, "hall")
        await two.frame()
        streams = await stack.enter_async_context(streaming(cluster))
        client = await stack.enter_async_context(Client(cluster.grpc))
        async with timeout(60), aclosing(client.watch("hall")) as watched:
            await anext(watched)
        victim = await publisher_of(http, cluster)
        assert victim is not None
        again = await stack.enter_async_context(publisher(cluster.http, SHOWN))
        back = await stack.enter_async_context(watcher(cluster.http))
        offers = await again.offer(), await back.offer()
        with measured(streams, result):
            began = time.monotonic()
            os.kill(cluster.pods.pop(victim), signal.SIGKILL)

            async def published() -> bool:
                response = await again.post(offers[0], "/whip/hall")
                if response.status == 201:
                    await again.take(await response.text())
                return response.status == 201

            async def viewed() -> bool:
                response = await back.post(offers[1], "/whep/hall")
                if response.status == 201:
                    await back.take(await response.text())
                return response.status == 201

            await until(published)
            result["published_again"] = time.monotonic() - began
            await until(viewed)
            await back.frame()
            result["viewed_again"] = time.monotonic() - began
            await more_masks(streams, 20)
    return result


async def drained(cluster: Cluster, http: aiohttp.ClientSession) -> dict[str, Any]:
    """A pod is drained: its gRPC streams move at once, its WebRTC session stays, and is found until it ends."""
    result: dict[str, Any] = {}
    async with viewer(cluster.http, Camera(SHOWN)) as one, streaming(cluster) as streams:
        await one.connect(mode="color", color="#ff0000")
        await one.frame()
        leaving = await publisher_of(http, cluster)
        assert leaving is not None
        with measured(streams, result):
            os.kill(cluster.pods[leaving], signal.SIGTERM)
            began = time.monotonic()
            statuses = set()
            while time.monotonic() - began < 2.5:
                async with aiohttp.ClientSession() as fresh, fresh.patch(one.location, json={"mode": "mask"}) as answer:
                    statuses.add(answer.status)
                await asyncio.sleep(0.1)
            async with aiohttp.ClientSession() as fresh, fresh.delete(one.location) as answer:
                statuses.add(answer.status)
            await more_masks(streams, 20)
        result["statuses"] = sorted(statuses)
        cluster.pods.pop(leaving)
    return result


async def vanished(cluster: Cluster, http: aiohttp.ClientSession, cuts: dict[str, str]) -> dict[str, Any]:
    """A pod's network is cut: nothing answers there any more, and nothing says so."""
    result: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        streams = await stack.enter_async_context(streaming(cluster))
        for _ in range(20):  # until one is where a gRPC stream is
            one = await stack.enter_async_context(viewer(cluster.http, Camera(SHOWN)))
            await one.connect(mode="color", color="#ff0000")
            lost = str(ipaddress.ip_address(pod_of(one.location)))
            if any(each["transport"] == "grpc" for each in await sessions(http, lost)):
                break
        for _ in range(8):  # the other pods have connections to it then
            async with aiohttp.ClientSession() as fresh, fresh.patch(one.location, json={"mode": "mask"}) as answer:
                assert answer.status == 200
        with measured(streams, result):
            began = time.monotonic()
            await asyncio.to_thread(subprocess.run, cuts[lost].split(), check=True)

            async def told() -> bool:
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with timeout(5), aiohttp.ClientSession() as fresh, fresh.get(one.location) as answer:
                        return (await answer.json(content_type=None)).get("title") == "POD_LOST"
                return False

            await until(told)
            result["told_lost"] = time.monotonic() - began
            asked = time.monotonic()
            async with watcher(cluster.http) as two:
                response = await two.post(await two.offer(), "/whep/nobody")
                result["nobody"] = (await response.json())["title"]
            result["searched"] = time.monotonic() - asked
            await more_masks(streams, 20)
    return result


async def run(cluster: Cluster, cuts: dict[str, str]) -> dict[str, Any]:
    """All of it, one after the other; with `cuts` only what they are for."""
    async with aiohttp.ClientSession() as http:
        if cuts:
            return {"vanished": await vanished(cluster, http, cuts)}
        return {
            "gstreamer": await gstreamer(cluster, http),
            "later_requests": await later_requests(cluster, http),
            "killed": await killed(cluster, http),
            "drained": await drained(cluster, http),
        }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--balancer", required=True, help="its address; HTTP at 8080, gRPC at 50051")
    parser.add_argument("--pod", action="append", required=True, help="ADDRESS=PROCESS")
    parser.add_argument("--cut", action="append", default=[], help="ADDRESS=COMMAND that cuts the pod's network")
    arguments = parser.parse_args()
    pods = {address: int(pid) for address, _, pid in (pod.partition("=") for pod in arguments.pod)}
    cluster = Cluster(f"http://{arguments.balancer}:8080", f"{arguments.balancer}:50051", pods)
    cuts = {address: command for address, _, command in (cut.partition("=") for cut in arguments.cut)}
    print(json.dumps(asyncio.run(run(cluster, cuts))), flush=True)


if __name__ == "__main__":
    main()
