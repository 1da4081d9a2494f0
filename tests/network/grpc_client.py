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


async def run(target: str, frames: int) -> None:
    """The whole life."""
    async with Client(target) as client, aclosing(client.stream(pictures(), reconnect_seconds=600)) as replies:
        assert (await anext(replies)).error is None
        print(json.dumps({"event": "first"}), flush=True)
        began = last = time.monotonic()
        longest = 0.0
        for _ in range(frames):
            assert (await anext(replies)).error is None
            now = time.monotonic()
            longest, last = max(longest, now - last), now
    print(json.dumps({"event": "done", "frames": frames, "seconds": last - began, "longest": longest}), flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("--frames", type=int, default=60)
    arguments = parser.parse_args()
    asyncio.run(run(arguments.target, arguments.frames))


if __name__ == "__main__":
    main()
