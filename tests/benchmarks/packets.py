"""What the packets of a picture cost, one way out and one way in: `python -m tests.benchmarks.packets`.

A connection of this process sends pictures that are encoded already, one after the other, and another one puts them
together and decodes nothing. It is what a call pays for its packets besides codecs and pixels: RTP, SRTP, system calls
and the event loop. A picture of 640x480 at 0.9 Mbit/s has three. The least of many rounds counts, which the machine's
other work hardly touches.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any

from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection

from portrait.transports.webrtc.aiortc_patches import install
from portrait.transports.webrtc.aiortc_patches.media_ports import PORTS, media_ports
from portrait.transports.webrtc.aiortc_patches.receiver import receive_undecoded
from portrait.transports.webrtc.aiortc_patches.shared_port import SharedPort
from portrait.transports.webrtc.aiortc_patches.video_codecs import EncodedPicture, send_encoded
from portrait.transports.webrtc.backlog import Backlog
from tests.benchmarks.stored import add_option, report

COUNTS = (3, 30)
"""Packets of a picture."""

PAYLOAD = 1100
"""Bytes of VP8 in a packet."""


class Pictures(MediaStreamTrack):
    """Gives a picture when the one before it has come."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self.wanted = asyncio.Semaphore(0)
        # A descriptor of one byte: a partition's beginning, and its continuation (RFC 7741 section 4.2).
        self.payloads = [(b"\x00" if i else b"\x10") + os.urandom(PAYLOAD) for i in range(max(COUNTS))]
        self.packets = self._count = 0

    async def recv(self) -> EncodedPicture:  # type: ignore[override]
        await self.wanted.acquire()
        self._count += 1
        return EncodedPicture(self.payloads[: self.packets], 3000 * self._count, False, 0.0, (640, 480))


class Packer:
    """A sender's encoder, of pictures that are encoded already."""

    target_bitrate = 0

    def pack(self, picture: EncodedPicture) -> tuple[list[bytes], int]:
        """RTP payloads and timestamp."""
        return picture.payloads, picture.timestamp


async def connect(track: Pictures, ports: Sequence[SharedPort]) -> tuple[list[RTCPeerConnection], Backlog]:
    """Both connections, and where pictures arrive."""
    sender, receiver = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    transceiver = sender.addTransceiver(track, direction="sendonly")
    PORTS.set(ports[0])
    await sender.setLocalDescription(await sender.createOffer())
    await receiver.setRemoteDescription(sender.localDescription)
    backlog, _ = receive_undecoded(receiver.getTransceivers()[0], lambda: None)
    PORTS.set(ports[1])
    await receiver.setLocalDescription(await receiver.createAnswer())
    send_encoded(transceiver, Packer(), lambda: None)
    await sender.setRemoteDescription(receiver.localDescription)
    return [sender, receiver], backlog


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Rounds of pictures, one after the other."""
    install()
    ports, loop = (SharedPort(0), SharedPort(0)), asyncio.get_running_loop()
    with media_ports(loop, ports[0]), media_ports(loop, ports[1]):
        track = Pictures()
        connections, backlog = await connect(track, ports)
        spent: dict[int, list[float]] = {count: [] for count in COUNTS}
        for _ in range(arguments.rounds):
            for track.packets, found in spent.items():
                found.append(await measure(track, backlog, arguments.pictures))
        for each in connections:
            await each.close()
    least = {count: 1e6 * min(found) for count, found in spent.items()}
    few, many = COUNTS
    return {
        "microseconds": {str(count): round(value, 1) for count, value in least.items()},
        "per_packet": round((least[many] - least[few]) / (many - few), 1),
    }


async def measure(track: Pictures, backlog: Backlog, pictures: int) -> float:
    """CPU seconds of a picture."""
    began = time.process_time()
    for _ in range(pictures):
        track.wanted.release()
        await backlog.take()
    return (time.process_time() - began) / pictures


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--pictures", type=int, default=20)
    add_option(parser, "packets")
    parsed = parser.parse_args()
    report(asyncio.run(run(parsed)), parsed.json)


if __name__ == "__main__":
    main()
