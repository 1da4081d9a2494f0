"""The pictures of docs/operate/deployment.md: dashboards of a container under a real load, scraped as shipped.

python -m tests.deploy.live.take_pictures docs/dashboards [--seconds 600]
"""

import argparse
import asyncio
import os
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from portrait.client import Client, ClientError, Picture
from tests.calls import jpeg
from tests.deploy import ROOT
from tests.deploy.dashboards import BOARDS
from tests.deploy.live.engine import Container, Engine
from tests.deploy.live.scraping import scraping
from tests.deploy.live.streaming import receive, send
from tests.deploy.pictures import draw
from tests.people import clip
from tests.rtc import Camera, viewer

PACE = 5.0
"""Seconds between scrapes, as shipped; the rules keep to it as well, so that a short picture has enough points."""

SIZE = (640, 360)


async def call(container: Container, mode: str, begin: float, end: float) -> None:
    """A browser's camera up and its result down, between two moments of this loop's clock."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(begin - loop.time())
    async with viewer(container.url.rstrip("/"), Camera(clip(*SIZE, 30))) as browser:
        await browser.connect(mode=mode)
        while loop.time() < end:
            await browser.frame()


async def stream(
    container: Container, mode: str, pause: float, frames: list[Picture], begin: float, end: float
) -> None:
    """Frames over gRPC, between two moments of this loop's clock."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(begin - loop.time())
    async with Client(f"127.0.0.1:{container.grpc}") as client, client.open_stream(mode=mode) as opened:
        tasks = [asyncio.create_task(send(opened, frames, pause)), asyncio.create_task(receive(opened))]
        await asyncio.wait(tasks, timeout=end - loop.time(), return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def knock(container: Container, begin: float, end: float) -> None:
    """Somebody for whom there may be no room, again and again."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(begin - loop.time())
    async with Client(f"127.0.0.1:{container.grpc}") as client:
        while loop.time() < end:
            try:
                async with client.open_stream():
                    pass
            except ClientError as error:
                assert error.reason == "TOO_MANY_SESSIONS"  # noqa: PT017  the other good outcome
            await asyncio.sleep(3)


async def some_minutes(container: Container, seconds: float) -> None:
    """People come and go; in the middle the box is full, and one stream sends more than can be worked on."""
    now = asyncio.get_running_loop().time()
    frames = [jpeg(frame) for frame in clip(*SIZE, 30).frames]
    broken = [*frames[:9], Picture.jpeg(b"none")]
    moments = now + seconds * np.array([0, 0.1, 0.2, 0.35, 0.55, 0.6, 0.8, 0.95])
    await asyncio.gather(
        call(container, "blur", moments[0], moments[7]),
        stream(container, "mask", 1 / 15, frames, moments[1], moments[7]),
        call(container, "color", moments[2], moments[6]),
        stream(container, "blur", 0.0, frames, moments[3], moments[4]),
        # Not at once: the stream before must have the last place.
        knock(container, moments[3] + 5, moments[4] - 5),
        stream(container, "mask", 1 / 10, broken, moments[5], moments[6]),
    )


async def main() -> None:
    """Build, load, scrape, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    wanted = parser.parse_args()
    engine = Engine(Path(os.environ.get("DEPLOY_TEST_FOLDER", ROOT / "build" / "deploy-test")))
    image = await asyncio.to_thread(engine.build, os.environ.get("DEPLOY_TEST_BASE"))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        options = ("--cpus=2", "--memory=1g", "--env=PORTRAIT_MAX_SESSIONS=4")
        container = stack.enter_context(engine.serving(image, *options))
        container.wait_ready()
        prometheus = stack.enter_context(scraping(container.http, Path(folder), f"{PACE:g}s"))
        await some_minutes(container, wanted.seconds)
        source = partial(prometheus.ask_range, seconds=wanted.seconds, step=PACE)
        for path in BOARDS:
            picture = wanted.folder / f"{path.stem}.png"
            await asyncio.to_thread(draw, path, source, picture)
            Image.open(picture).convert("RGB").quantize(64).save(picture, optimize=True)
            print(picture)


if __name__ == "__main__":
    asyncio.run(main())
