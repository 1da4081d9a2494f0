"""The network is cut: nothing is told to anybody, packets just stop coming."""

import asyncio
import json
import os
import sys
import time
from asyncio import timeout
from asyncio.subprocess import Process
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from tests.network.namespaces import Namespace, Network, missing
from tests.network.test_network import CLIENT, call, net, running, serving
from tests.timing import at_most

__all__ = ["net"]  # a fixture

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

SERVER = "10.77.1.9"
IDLE_SECONDS = 30.0
LONG_SECONDS = float(os.environ.get("CUT_SECONDS", "10"))
FRAMES = 60


class Ended(Exception):
    """The client has ended."""


@contextmanager
def cut(*sides: Namespace) -> Iterator[None]:
    """Each side sends, and nothing arrives."""
    for side in sides:
        side.run("iptables -I INPUT ! -i lo -j DROP")
    try:
        yield
    finally:
        for side in sides:
            side.run("iptables -D INPUT ! -i lo -j DROP")


def joined(net: Network) -> tuple[Namespace, Namespace]:
    """(client, server), on one cable."""
    client, server = net.add("client"), net.add("server")
    net.join(client, server, (f"{CLIENT}/24", f"{SERVER}/24"))
    return client, server


async def sessions(server: Namespace) -> list[dict[str, Any]]:
    """The sessions that are open, asked for on the server's side of the cut."""
    asking = f"import urllib.request as r; print(r.urlopen('http://{SERVER}:8080/v1/sessions').read().decode())"
    async with running(server.command(sys.executable, "-c", asking)) as process:
        out, _ = await process.communicate()
    found: list[dict[str, Any]] = json.loads(out)
    return found


async def event(process: Process) -> dict[str, Any]:
    """The next line a client prints."""
    assert process.stdout is not None
    async with timeout(180):
        line = await process.stdout.readline()
    if not line:
        raise Ended
    told: dict[str, Any] = json.loads(line)
    return told


def clients(client: Namespace, gap: float) -> dict[str, list[str]]:
    """What runs a client of each kind, which ends some frames after it was without any for so many seconds."""
    options = ("--frames", str(FRAMES), "--gap", str(gap))
    return {
        "webrtc": client.command(sys.executable, "-m", "tests.rtc_client", f"http://{SERVER}:8080", *options),
        "grpc": client.command(sys.executable, "-m", "tests.network.grpc_client", f"{SERVER}:50051", *options),
    }


async def test_a_cut_of_a_second_is_a_picture_that_stands_still(net: Network) -> None:
    client, server = joined(net)
    commands = clients(client, gap=0.8)
    async with (
        serving(server, SERVER, "--idle-seconds", str(IDLE_SECONDS)),
        running(commands["webrtc"]) as webrtc,
        running(commands["grpc"]) as grpc,
    ):
        assert [(await event(one))["event"] for one in (webrtc, grpc)] == ["first"] * 2
        before = {session["id"] for session in await sessions(server)}
        assert len(before) == 2
        with cut(client, server):
            await asyncio.sleep(1)
        assert {session["id"] for session in await sessions(server)} == before
        done = [await event(one) for one in (webrtc, grpc)]
    print(f"longest without a picture: {[round(one['longest'], 1) for one in done]} s")
    assert [one["event"] for one in done] == ["done"] * 2


@pytest.mark.timing
async def test_after_a_cut_of_five_seconds_pictures_are_back_within_two(net: Network) -> None:
    """WebRTC's, unless its session was ended meanwhile, which it is from five seconds on; gRPC's always."""
    client, server = joined(net)
    commands = clients(client, gap=4)
    async with (
        serving(server, SERVER, "--idle-seconds", str(IDLE_SECONDS), "--max-sessions", "2"),
        running(commands["webrtc"]) as webrtc,
        running(commands["grpc"]) as grpc,
    ):
        assert [(await event(one))["event"] for one in (webrtc, grpc)] == ["first"] * 2
        (before,) = [session["id"] for session in await sessions(server) if session["transport"] == "grpc"]
        since = time.monotonic()
        with cut(client, server):
            await asyncio.sleep(5)
        length = time.monotonic() - since
        assert before in {session["id"] for session in await sessions(server)}
        longest = {"grpc": (await event(grpc))["longest"]}
        with suppress(Ended):
            longest["webrtc"] = (await event(webrtc))["longest"]
        async with timeout(60):
            while await sessions(server):
                await asyncio.sleep(0.5)  # each look starts an interpreter
        assert (await call(client, f"http://{SERVER}:8080"))["frames"] == 30
    print(f"longest without a picture: {longest} s, of {length:.1f}")
    for kind, each in longest.items():
        at_most(f"longest without a picture, {kind}, beyond the cut, seconds", each - length, 3)


async def test_a_long_cut_frees_the_places_and_everybody_comes_back(net: Network) -> None:
    """TCP connections are half open all the while, and nobody has said goodbye. A minute: `make cut`."""
    client, server = joined(net)
    commands = clients(client, gap=LONG_SECONDS - 2)
    async with (
        serving(server, SERVER, "--idle-seconds", "3", "--max-sessions", "2"),
        running(commands["webrtc"]) as webrtc,
        running(commands["grpc"]) as grpc,
    ):
        assert [(await event(one))["event"] for one in (webrtc, grpc)] == ["first"] * 2
        assert len(await sessions(server)) == 2
        with cut(client, server):
            since = time.monotonic()
            async with timeout(LONG_SECONDS + 60):
                while await sessions(server):
                    await asyncio.sleep(0.5)
            print(f"all places were free after {time.monotonic() - since:.1f} s")
            await asyncio.sleep(max(0.0, since + LONG_SECONDS - time.monotonic()))
        # The gRPC client finds back by itself; of WebRTC's signalling a new one is made, as the page does.
        done = await event(grpc)
        print(f"longest without a picture: {done['longest']:.1f} s")
        assert done["event"] == "done"
        assert (await call(client, f"http://{SERVER}:8080"))["frames"] == 30
