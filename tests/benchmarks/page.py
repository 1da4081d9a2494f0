"""The page in headless Chromium against a served process: `python -m tests.benchmarks.page --mode blur`.

Prints what the page shows after a while (frames per second, latency, size, dropped) and the server's whole CPU time per
frame: packets, decoding, network, composing, encoding. The camera is a drawn figure in Chromium's fake device.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

import aiohttp
import cv2
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from tests import people
from tests.browser import open_page, write_camera


async def counters(http: aiohttp.ClientSession) -> tuple[float, float]:
    """(CPU seconds of the server, frames done)."""
    async with http.get("/metrics") as response:
        families = {family.name: family for family in text_string_to_metric_families(await response.text())}
    frames = sum(s.value for s in families["portrait_frames"].samples if s.labels.get("result") == "done")
    return families["process_cpu_seconds"].samples[0].value, frames


async def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Serve, look at the page, print."""
    width, height = map(int, arguments.size.split("x"))
    background = np.asarray(cv2.GaussianBlur(people.room(width, height, seed=5), (0, 0), 2), np.uint8)
    write_camera(folder / "camera.y4m", people.clip(width, height, 60, background=background))
    command = [sys.executable, "-m", "portrait", "serve", "--json", "--http-port", "0", "--grpc-port", "0"]
    server = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert server.stdout is not None
    url = json.loads(await server.stdout.readline())["page"]
    try:
        async with (
            aiohttp.ClientSession(url) as http,
            open_page(url, folder / "profile", folder / "camera.y4m") as page,
        ):
            await page.select_option("#resolution", arguments.size)
            await page.click("#toggle")
            await page.locator(f"input[name=mode][value={arguments.mode}]").check(force=True)
            if arguments.mode == "image":
                await page.click("[data-name=office]")
            await asyncio.sleep(10)  # until Chromium has found its bandwidth and its size
            cpu, frames = await counters(http)
            await asyncio.sleep(arguments.seconds)
            cpu, frames = (after - before for after, before in zip(await counters(http), (cpu, frames), strict=True))
            shown = {name: await page.inner_text(f"#{name}") for name in ("fps", "latency", "size", "dropped")}
            print(
                f"{arguments.mode}: {shown}, server CPU {1000 * cpu / frames:.1f} ms a frame over {frames:.0f} frames"
            )
            if arguments.screenshot:
                await page.screenshot(path=arguments.screenshot, scale="css")
    finally:
        server.terminate()
        await server.wait()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", default="blur")
    parser.add_argument("--size", default="640x480", choices=["640x360", "640x480", "1280x720"])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--screenshot", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        asyncio.run(measure(arguments, Path(folder)))


if __name__ == "__main__":
    main()
