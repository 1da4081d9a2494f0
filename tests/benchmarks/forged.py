"""What packets of strangers to the media port cost: `python -m tests.benchmarks.forged`.

A session runs, and a process beside it sends datagrams of one kind after another to the port that all sessions share.
In turns with and without them: the CPU time of the service's processes, its memory, and what the session gets.
"""

import argparse
import asyncio
import json
import os
import re
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from portrait.transports.webrtc import aiortc_patches
from tests import people
from tests.benchmarks.ports import Loopback, Timed, loopback, server
from tests.benchmarks.processes import cpu_seconds, family, resident
from tests.benchmarks.stored import add_option, report
from tests.ports import free_ports

KINDS = ("media", "dtls", "request of no session", "response to nothing")
BATCH = 0.005
"""Seconds between two batches of datagrams."""


def forged(kind: str) -> bytes:
    """A datagram of a stranger."""
    number = os.urandom(12)
    match kind:
        case "media":
            return b"\x80\x60" + os.urandom(1100)
        case "dtls":
            return b"\x16\xfe\xff" + os.urandom(200)
        case "response to nothing":
            return b"\x01\x01\x00\x00\x21\x12\xa4\x42" + number
    name = os.urandom(6).hex() + ":" + os.urandom(2).hex()
    body = b"\x00\x06" + len(name).to_bytes(2, "big") + name.encode() + bytes(-len(name) % 4)
    body += b"\x00\x24\x00\x04\x6e\x00\x1e\xff" + b"\x00\x08\x00\x14" + os.urandom(20)
    return b"\x00\x01" + len(body).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + number + body


def flood(host: str, port: int, kind: str, rate: float, seconds: float) -> None:
    """Send at a steady rate; prints how many were sent."""
    ready, sent, began = [forged(kind) for _ in range(200)], 0, time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        while (passed := time.monotonic() - began) < seconds:
            while sent < passed * rate:
                stranger.sendto(ready[sent % len(ready)], (host, port))
                sent += 1
            time.sleep(BATCH)
    print(sent)


def lost(port: int) -> int:
    """Datagrams that found no room in the port's buffers since they were opened."""
    rows = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return sum(int(row[-1]) for row in rows if int(row[1].split(":")[1], 16) == port)


async def turn(
    place: tuple[str, int], process: int, session: Loopback, kind: str | None, rate: float, seconds: float
) -> dict[str, Any]:
    """Some seconds with datagrams of a kind, or without any."""
    session.milliseconds.clear()
    spent, dropped, began = cpu_seconds(process), lost(place[1]), time.monotonic()
    sent = 0
    if kind is None:
        await asyncio.sleep(seconds)
    else:
        words = (sys.executable, "-m", "tests.benchmarks.forged", "--flood", kind, *map(str, place))
        pipe = asyncio.subprocess.PIPE
        flooding = await asyncio.create_subprocess_exec(
            *words, "--rate", str(rate), "--seconds", str(seconds), stdout=pipe
        )
        out, _ = await flooding.communicate()
        sent = int(out)
    took = time.monotonic() - began
    return {
        "kind": kind or "none",
        "sent_per_second": round(sent / seconds),
        "lost_per_second": round((lost(place[1]) - dropped) / seconds),
        "cores": round((cpu_seconds(process) - spent) / took, 3),
        "resident_mb": round(resident(family(process)) / 2**20, 1),
        "results_per_second": round(len(session.milliseconds) / took, 1),
        "median_ms": round(statistics.median(session.milliseconds), 1),
    }


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every kind, between turns without."""
    aiortc_patches.install()
    [port] = free_ports(1)
    turns = []
    async with server("--media-ports", "", "--media-port", str(port)) as (url, process):
        camera = Timed(people.clip(320, 240, 60), arguments.session_rate)
        async with loopback(url, camera) as session:
            found = re.findall(rf" udp \d+ ([\d.]+) {port} typ host", session.answer)
            await asyncio.sleep(5)
            for turned in [*(each for kind in KINDS for each in (None, kind)), None]:
                turns.append(await turn((found[0], port), process, session, turned, arguments.rate, arguments.seconds))
                print(json.dumps(turns[-1]), flush=True)
    return {"turns": turns}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=10_000.0, help="datagrams a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of one turn")
    parser.add_argument("--session-rate", type=float, default=15.0, help="frames per second of the session")
    parser.add_argument("--flood", nargs=3, metavar=("KIND", "HOST", "PORT"), help="only send")
    add_option(parser, "forged")
    parsed = parser.parse_args()
    if parsed.flood:
        kind, host, port = parsed.flood
        flood(host, int(port), kind, parsed.rate, parsed.seconds)
    else:
        report(asyncio.run(run(parsed)), parsed.json)


if __name__ == "__main__":
    main()
