"""What the viewers of one stream cost its server, beside aiortc's relay: `python -m tests.benchmarks.viewers`.

A publisher sends 640x480 at 30 frames per second, and so many viewers take what becomes of it, report and do nothing
else. What counts is all of the server's CPU time for a picture that every viewer has got, which says the same on a
machine too busy for 30 pictures per second. The service composes (blur); the relay is aiortc as it ships, `MediaRelay`,
which decodes once, does nothing with the picture and encodes it for every viewer.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
from aiortc.rtcrtpreceiver import RTCRtpReceiver, StreamStatistics
from aiortc.rtp import RtpPacket

from portrait.workers.environment import MALLOC
from tests import people
from tests.benchmarks.processes import cpu_seconds
from tests.benchmarks.stored import add_option, report
from tests.rtc import Camera, Viewer

SERVERS = {
    "portrait": (
        "portrait", "serve", "--json", "--http-port", "0", "--grpc-port", "0", "--media-ports", "0-0", "--workers", "1",
        "--cpu-share", "0", "--quality-steps", "0", "--max-viewers", "100",
    ),
    "aiortc": ("tests.benchmarks.relay",),
}  # fmt: skip


@asynccontextmanager
async def server(name: str) -> AsyncIterator[tuple[str, int]]:
    """(address, process) of a server."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *SERVERS[name], env={**os.environ, **MALLOC},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said = json.loads(await process.stdout.readline())
        yield (said["page"].rstrip("/") if isinstance(said, dict) else f"http://127.0.0.1:{said}"), process.pid
    finally:
        process.terminate()
        await process.wait()


def only_count() -> None:
    """Let the receivers of this process count pictures, by their markers, and do nothing with them but report."""

    async def handle(self: Any, packet: RtpPacket, arrival_time_ms: int) -> None:
        self.pictures = getattr(self, "pictures", 0) + packet.marker
        self._RTCRtpReceiver__remote_streams.setdefault(packet.ssrc, StreamStatistics(90_000)).add(packet)

    RTCRtpReceiver._handle_rtp_packet = handle  # type: ignore[method-assign]


async def measure(name: str, viewers: int, shown: people.Clip, seconds: float) -> tuple[float, float]:
    """(cores of the server, frames per second that a viewer gets)."""
    async with AsyncExitStack() as stack:
        url, process = await stack.enter_async_context(server(name))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        publisher = Viewer(url, http)
        stack.push_async_callback(publisher.pc.close)
        publisher.pc.addTransceiver(Camera(shown), direction="sendonly")
        await publisher.connect("/whip/desk")
        watching = [Viewer(url, http) for _ in range(viewers)]
        for one in watching:
            stack.push_async_callback(one.pc.close)
            one.pc.addTransceiver("video", direction="recvonly")
            await _connect(one)
        async with asyncio.timeout(120):
            while not all(map(_received, watching)):
                await asyncio.sleep(0.5)
        await asyncio.sleep(3)
        began, spent, frames = time.monotonic(), cpu_seconds(process), _pictures(watching)
        await asyncio.sleep(seconds)
        took = time.monotonic() - began
        return (cpu_seconds(process) - spent) / took, (_pictures(watching) - frames) / viewers / took


async def _connect(one: Viewer) -> None:
    offer = await one.offer()
    while (response := await one.post(offer, "/whep/desk")).status != 201:
        await asyncio.sleep(0.5)  # not more at once than one address may
    await one.take(await response.text())


def _pictures(watching: list[Viewer]) -> int:
    """How many pictures the viewers have got in all."""
    return sum(_received(one) for one in watching)


def _received(one: Viewer) -> int:
    receiver: Any = one.pc.getTransceivers()[0].receiver
    return int(getattr(receiver, "pictures", 0))


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every number of viewers, ours and the peer's in turns."""
    shown = people.clip(640, 480, 60)
    only_count()
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in SERVERS}
    for viewers in arguments.viewers:
        for name in SERVERS:
            if name == "aiortc" and viewers > arguments.most_of_peer:
                continue
            cores, rate = await measure(name, viewers, shown, arguments.seconds)
            spent = 1000 * cores / rate
            found[name][str(viewers)] = {"cpu_ms": round(spent, 2), "frames_per_second": round(rate, 1)}
            print(f"{name:<9} {viewers:>3} viewers: {spent:.2f} ms a picture at {rate:.1f} per second", flush=True)
    ours = {int(viewers): row["cpu_ms"] for viewers, row in found["portrait"].items()}
    least = min(ours)
    return {
        "servers": found,
        "of_one": {str(viewers): round(spent / ours[least], 2) for viewers, spent in ours.items()},
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--most-of-peer", type=int, default=8, help="more the relay cannot encode for on two cores")
    parser.add_argument("--seconds", type=float, default=15.0)
    add_option(parser, "viewers")
    parsed = parser.parse_args()
    report(asyncio.run(run(parsed)), parsed.json)


if __name__ == "__main__":
    main()
