"""A WebRTC client as a process of its own: `python -m tests.rtc_client URL --path /webrtc --frames 60`.

Uses the ICE servers the service tells of; with `--tcp` the service's TCP candidates and no others. Prints a line of
JSON when pictures come, `{"event": "first"}`, and one at the end; killed, it vanishes without a word.
"""

import argparse
import asyncio
import json
import re
import statistics
import time

import aiohttp
import av
from aiortc import MediaStreamTrack, RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription

from tests.people import Clip, clip
from tests.rtc import SIZE, Camera
from tests.tcp_ice import over_tcp

RTP_CLOCK = 90_000
ASKS = {"/webrtc": "sendrecv", "/whip": "sendonly", "/whep": "recvonly"}


class Live(Camera):
    """A camera whose frames have the time at which they were taken, as real ones have."""

    async def recv(self) -> av.VideoFrame:
        frame = await super().recv()
        frame.pts = round(time.monotonic() * RTP_CLOCK)
        return frame


def ice_servers(links: list[str]) -> list[RTCIceServer]:
    """What the Link headers say."""
    found = []
    for link in links:
        values = dict(re.findall(r'(\w+)="([^"]*)"', link))
        url = re.search("<([^>]*)>", link)
        assert url is not None
        assert values["rel"] == "ice-server"
        found.append(RTCIceServer(url[1], values.get("username"), values.get("credential")))
    return found


async def connect(arguments: argparse.Namespace, http: aiohttp.ClientSession, shown: Clip) -> RTCPeerConnection:
    """A connection that was answered."""
    address = f"{arguments.url}{arguments.path}"
    async with http.options(address) as response:
        servers = ice_servers(response.headers.getall("Link", []))
    connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
    direction = next(way for start, way in ASKS.items() if arguments.path.startswith(start))
    connection.addTransceiver(Live(shown) if "send" in direction else "video", direction=direction)
    await connection.setLocalDescription(await connection.createOffer())
    headers = {"Content-Type": "application/sdp"}
    async with http.post(address, data=connection.localDescription.sdp, headers=headers) as response:
        assert response.status == 201, await response.text()
        answer = await response.text()
    if arguments.tcp:
        answer = await over_tcp(connection, answer)
    await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    return connection


async def watch(connection: RTCPeerConnection, frames: int, gap: float) -> dict[str, object]:
    """What came: how many pictures in how many seconds, the longest time without one, and by which way.

    "later": how much later the last pictures came than the timeliest one, by the times of the camera.

    They are counted from the first time without one on that took `gap` seconds.
    """
    track: MediaStreamTrack = connection.getTransceivers()[0].receiver.track
    await track.recv()
    print(json.dumps({"event": "first"}), flush=True)
    began = last = time.monotonic()
    longest, counted, ages = 0.0, 0, list[float]()
    while counted < frames:
        picture = await track.recv()
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        ages.append(now - (picture.time or 0))
        counted += longest >= gap
    pair = connection.getTransceivers()[0].receiver.transport.transport._connection._nominated[1]
    return {
        "event": "done",
        "frames": frames,
        "seconds": last - began,
        "longest": longest,
        "later": statistics.median(ages[-10:]) - min(ages),
        "local": pair.local_candidate.type,
        "transport": pair.local_candidate.transport,
        "remote": pair.remote_candidate.host,
    }


async def run(arguments: argparse.Namespace) -> None:
    """The whole life."""
    shown = clip(*SIZE, 30)
    async with aiohttp.ClientSession() as http:
        connection = await connect(arguments, http, shown)
        try:
            if arguments.path.startswith("/whip"):
                await asyncio.Event().wait()
            print(json.dumps(await watch(connection, arguments.frames, arguments.gap)), flush=True)
        finally:
            await connection.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--path", default="/webrtc")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--tcp", action="store_true", help="media over TCP, without a relay")
    parser.add_argument("--gap", type=float, default=0.0, help="seconds without a picture after which it counts them")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
