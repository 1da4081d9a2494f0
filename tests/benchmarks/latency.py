"""Glass to glass in headless Chromium, the service against aiortc as it comes: `python -m tests.benchmarks.latency`.

The camera plays 640x480 at 30 frames per second; each frame has its number drawn on the person. The page notes when a
number is painted in the preview and when in the result: the time between is what the service adds, network, codecs and
browser included. Three contenders take turns: the service, aiortc as it comes, and aiortc with Chromium told to keep
the picture's size, since aiortc's bandwidth estimate lets Chromium shrink it. Server CPU is of all the server's
processes, from the kernel. Writes JSON; the shares asked for are those against aiortc at the same size.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from playwright.async_api import Page, Route

from tests import people
from tests.benchmarks.numbered import Place, as_json, numbered
from tests.benchmarks.processes import cpu_seconds
from tests.benchmarks.stored import add_option, report
from tests.browser import open_page, write_camera

HERE = Path(__file__).parent
SIZE = (640, 480)

PAGE = 2 * "<video muted playsinline width='480'></video>"

OPEN = """async ([place, keepSize]) => {
  const { Glass } = await import("/glass.js");
  window.glass = new Glass();
  await glass.open(place, keepSize);
}"""

SERVE = ("-m", "portrait", "serve", "--json", "--http-port", "0", "--grpc-port", "0")
BASELINE = ("-m", "tests.benchmarks.baseline")


@dataclass(frozen=True)
class Contender:
    """Who is measured."""

    name: str
    command: tuple[str, ...]
    keep_size: bool = False


CONTENDERS = (
    Contender("portrait", SERVE),
    Contender("aiortc", BASELINE),
    Contender("aiortc, size kept", BASELINE, keep_size=True),
)


@asynccontextmanager
async def serving(contender: Contender) -> AsyncIterator[tuple[str, int]]:
    """(address, process) of a server for the length of the block."""
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    server = await asyncio.create_subprocess_exec(sys.executable, *contender.command, stdout=pipe, stderr=null)
    assert server.stdout is not None
    try:
        yield json.loads(await server.stdout.readline())["page"], server.pid
    finally:
        server.terminate()
        await server.wait()


@asynccontextmanager
async def browsing(url: str, folder: Path) -> AsyncIterator[Page]:
    """The benchmark's page, at the server's origin."""

    async def page_itself(route: Route) -> None:
        await route.fulfill(body=PAGE, content_type="text/html")

    async def module(route: Route) -> None:
        await route.fulfill(path=HERE / "glass.js")

    async with open_page("about:blank", folder / "profile", folder / "camera.y4m") as page:
        await page.route("**/glass.html", page_itself)
        await page.route("**/glass.js", module)
        await page.goto(f"{url}glass.html")
        yield page


async def measure(contender: Contender, place: Place, camera: Path, seconds: float, settle: float) -> dict[str, Any]:
    """One turn: what the page and the kernel say."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "camera.y4m").symlink_to(camera)
        async with serving(contender) as (url, process), browsing(url, folder) as page:
            await page.evaluate(OPEN, [as_json(place), contender.keep_size])
            await asyncio.sleep(settle)
            await page.evaluate("glass.restart()")
            before, cpu = await page.evaluate("glass.report()"), cpu_seconds(process)
            limited, sizes = 0, set[str]()
            for _ in range(round(2 * seconds)):
                await asyncio.sleep(0.5)
                seen = await page.evaluate("glass.report().then(({ latencies, ...rest }) => rest)")
                limited += seen["limitation"] == "bandwidth"
                sizes.add("{}x{} up, {}x{} down".format(*seen["up"], *seen["down"]))
            after, cpu = await page.evaluate("glass.report()"), cpu_seconds(process) - cpu
    decoded = after["decoded"] - before["decoded"]
    latencies = np.asarray(after["latencies"])
    return {
        "contender": contender.name,
        "median_ms": float(np.median(latencies)),
        "p90_ms": float(np.percentile(latencies, 90)),
        "p99_ms": float(np.percentile(latencies, 99)),
        "latencies_ms": [round(float(one), 1) for one in latencies],
        "cpu_ms_per_frame": 1000 * cpu / decoded,
        "frames_per_second": decoded / seconds,
        "kbit_per_second_up": 8 * (after["bytesSent"] - before["bytesSent"]) / seconds / 1000,
        "sizes": sorted(sizes),
        "seconds_limited_by_bandwidth": limited / 2,
        "freezes": after["freezes"] - before["freezes"],
        "longest_gap_ms": after["longest"],
        "unread": after["unread"],
        "painted": after["painted"],
    }


def shares(turns: list[dict[str, Any]], against: str) -> dict[str, float]:
    """The service's figures as shares of another's, over all turns."""
    figures: dict[str, tuple[float, float, float]] = {}
    for name in ("portrait", against):
        mine = [turn for turn in turns if turn["contender"] == name]
        latencies = np.concatenate([turn["latencies_ms"] for turn in mine])
        cpu = float(np.mean([turn["cpu_ms_per_frame"] for turn in mine]))
        figures[name] = float(np.median(latencies)), float(np.percentile(latencies, 99)), cpu
    ours, others = figures["portrait"], figures[against]
    names = ("median", "p99", "cpu_per_frame")
    return {name: round(a / b, 3) for name, a, b in zip(names, ours, others, strict=True)}


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every contender in turn, as many rounds as asked for."""
    figure = people.clip(*SIZE, 60)
    clip, place = numbered(figure)
    with tempfile.TemporaryDirectory() as name:
        camera = Path(name) / "camera.y4m"
        write_camera(camera, clip)
        turns = []
        for _ in range(arguments.rounds):
            for contender in CONTENDERS:
                turn = await measure(contender, place, camera, arguments.seconds, arguments.settle)
                told = {key: value for key, value in turn.items() if key != "latencies_ms"}
                print(json.dumps(told, default=float), flush=True)
                turns.append(turn)
    ours = [turn for turn in turns if turn["contender"] == "portrait"]
    return {
        "arguments": {key: value for key, value in vars(arguments).items() if key != "json"},
        "of_aiortc_at_the_same_size": shares(turns, "aiortc, size kept"),
        "of_aiortc_as_it_comes": shares(turns, "aiortc"),
        "portrait_freezes": sum(turn["freezes"] for turn in ours),
        "portrait_seconds_limited_by_bandwidth": sum(turn["seconds_limited_by_bandwidth"] for turn in ours),
        "turns": [{key: value for key, value in turn.items() if key != "latencies_ms"} for turn in turns],
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a turn is measured")
    parser.add_argument("--settle", type=float, default=5.0, help="how long it runs before that")
    parser.add_argument("--rounds", type=int, default=2)
    add_option(parser, "latency")
    arguments = parser.parse_args()
    report(asyncio.run(run(arguments)), arguments.json)


if __name__ == "__main__":
    main()
