"""A gRPC client as a process of its own: `python -m tests.network.grpc_client HOST:PORT --frames 60`.

Prints what `tests.rtc_client` prints. It looks for its server for as long as it takes.
"""

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import cycle

from portrait.client import Client
from tests.people import Array, clip
from tests.rtc import SIZE


async def pictures() -> AsyncIterator[Array]:
    """As a camera gives them."""
    for frame in cycle(clip(*SIZE, 30).frames):
        await asyncio.sleep(1 / 30)
        yield frame


async def run(target: str, frames: int, gap: float) -> None:
    """The whole life. Frames are counted from the first time without one on that took `gap` seconds."""
    async with Client(target) as client, aclosing(client.stream(pictures(), reconnect_seconds=600)) as replies:
        assert (await anext(replies)).error is None
        print(json.dumps({"event": "first"}), flush=True)
        began = last = time.monotonic()
        longest, counted = 0.0, 0
        while counted < frames:
            assert (await anext(replies)).error is None
            now = time.monotonic()
            longest, last = max(longest, now - last), now
            counted += longest >= gap
    print(json.dumps({"event": "done", "frames": frames, "seconds": last - began, "longest": longest}), flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--gap", type=float, default=0.0, help="seconds without a picture after which it counts them")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.target, arguments.frames, arguments.gap))


if __name__ == "__main__":
    main()
