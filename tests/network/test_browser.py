"""Headless Chromium in a network of its own: without UDP, through a relay, and over a bad line."""

import time
from asyncio import timeout
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, Request, Route

from tests.browser import CHROMIUM, open_page, write_camera
from tests.network.namespaces import Namespace, Network, missing, network
from tests.network.test_network import (
    CLIENT,
    RELAY_OUTSIDE,
    SECRET,
    SERVER,
    SERVER_BESIDE,
    bad_line,
    firewalled,
    relaying,
    running,
    serving,
    without_udp,
)
from tests.people import clip
from tests.test_clients import MODULES, PUBLISH, VIEW, more_frames
from tests.timing import at_least, at_most

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.skipif(CHROMIUM is None, reason="playwright's own Chromium is not started in a namespace"),
]

SELECTED = """async (connection) => {
  const reports = await connection.getStats();
  const pair = [...reports.values()].find((report) => report.type === "candidate-pair" && report.nominated);
  return [reports.get(pair.localCandidateId).candidateType, reports.get(pair.localCandidateId).relayProtocol];
}"""

SELECTED_PROTOCOL = """async (connection) => {
  const reports = await connection.getStats();
  const transport = [...reports.values()].find((report) => report.type === "transport");
  const pair = reports.get(transport.selectedCandidatePairId);
  return reports.get(pair.localCandidateId).protocol;
}"""

INBOUND = """async () => {
  const reports = await viewer.pc.getStats();
  return [...reports.values()].find((report) => report.type === "inbound-rtp");
}"""


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as built:
        yield built


@asynccontextmanager
async def browsing(place: Namespace, url: str, folder: Path) -> AsyncIterator[Page]:
    """A page of the service's origin, in a browser inside a namespace, with the RFC author's clients beside it."""
    write_camera(folder / "camera.y4m", clip(640, 480, 60))
    assert CHROMIUM is not None
    program = place.wrapper(CHROMIUM, folder / "chromium")
    # Without TLS the camera is given to no page but the machine's own.
    trusted = [f"--unsafely-treat-insecure-origin-as-secure={url}"]
    async with open_page("about:blank", folder / "profile", folder / "camera.y4m", True, trusted, program) as page:
        page.set_default_timeout(60_000)
        await page.route("**/*.js", serve_module)
        await page.route("**/page.html", serve_page)
        await page.goto(f"{url}/page.html")
        yield page


async def serve_page(route: Route) -> None:
    await route.fulfill(body="<video muted playsinline></video>", content_type="text/html")


async def serve_module(route: Route, request: Request) -> None:
    await route.fulfill(path=MODULES / request.url.rpartition("/")[2])


async def publish_and_view(page: Page, url: str) -> None:
    """The camera to the service and back."""
    async with timeout(60):
        await _publish_and_view(page, url)


async def _publish_and_view(page: Page, url: str) -> None:
    await page.evaluate(PUBLISH, [f"{url}/whip/desk", ""])
    await page.wait_for_function("publishing.connectionState === 'connected'")
    await page.evaluate(VIEW, [f"{url}/whep/desk", ""])
    await more_frames(page, 10)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_browser_behind_a_firewall_publishes_and_watches_through_turn(
    net: Network, tmp_path: Path, transport: str
) -> None:
    """The clients take the relay from the Link headers of the 201, as RFC 9725 has it."""
    client, relay, server = firewalled(net)
    if transport == "tcp":
        relay.run(f"iptables -A INPUT -p udp -s {CLIENT} -j DROP")
    turn = f"turn:{RELAY_OUTSIDE}:3478?transport={transport}"
    async with (
        relaying(relay),
        serving(server, SERVER, "--ice-urls", turn, "--turn-secret", SECRET) as url,
        browsing(client, url, tmp_path) as page,
    ):
        await publish_and_view(page, url)
        for connection in ("publisher.pc", "viewer.pc"):
            assert await page.evaluate(f"({SELECTED})({connection})") == ["relay", transport]


async def test_a_browser_without_udp_publishes_and_watches_over_tcp_and_comes_back_when_it_breaks(
    net: Network, tmp_path: Path
) -> None:
    client, server = without_udp(net)
    async with (
        serving(server, SERVER_BESIDE, "--media-port", "50000") as url,
        browsing(client, url, tmp_path) as page,
    ):
        await publish_and_view(page, url)
        for connection in ("publisher.pc", "viewer.pc"):
            assert await page.evaluate(f"({SELECTED_PROTOCOL})({connection})") == "tcp"
        began, broken = time.monotonic(), await peers(server, 50000)
        assert len(broken) == 2
        for port in broken:  # as when a firewall between them forgets its connections
            server.run(f"iptables -A INPUT -p tcp --sport {port} --dport 50000 -j REJECT --reject-with tcp-reset")
        await more_frames(page, 10)
        print(f"TCP connections were reset: 10 more frames after {time.monotonic() - began:.1f} s")
        assert not broken & await peers(client, 50000, "dport")
        assert await peers(client, 50000, "dport")


async def peers(place: Namespace, port: int, side: str = "sport") -> set[str]:
    """The other ends' ports of the TCP connections that a port has inside a namespace."""
    async with running(place.command("ss", "-Htn", "state", "established", f"{side} = :{port}")) as process:
        out, _ = await process.communicate()
    column = 3 if side == "sport" else 2
    return {line.split()[column].rpartition(":")[2] for line in out.decode().splitlines()}


async def test_where_udp_works_a_browser_uses_it(net: Network, tmp_path: Path) -> None:
    client, server = net.add("client"), net.add("server")
    net.join(client, server, (f"{CLIENT}/24", f"{SERVER_BESIDE}/24"))
    async with (
        serving(server, SERVER_BESIDE, "--media-port", "50000") as url,
        browsing(client, url, tmp_path) as page,
    ):
        await publish_and_view(page, url)
        for connection in ("publisher.pc", "viewer.pc"):
            assert await page.evaluate(f"({SELECTED_PROTOCOL})({connection})") == "udp"


@pytest.mark.timing
async def test_loss_and_jitter_leave_a_browsers_picture_moving(net: Network, tmp_path: Path) -> None:
    async with (
        bad_line(net, loss=0.02, delay=0.05) as (client, server),
        serving(server, "10.77.1.9") as url,
        browsing(client, url, tmp_path) as page,
    ):
        await publish_and_view(page, url)
        before = await page.evaluate(INBOUND)
        began = time.monotonic()
        await more_frames(page, 100)
        seconds = time.monotonic() - began
        after: dict[str, Any] = await page.evaluate(INBOUND)
    names = ("framesDecoded", "packetsReceived", "packetsLost", "nackCount", "pliCount", "freezeCount")
    counts = {name: after[name] - before[name] for name in names}
    frozen = after["totalFreezesDuration"] - before["totalFreezesDuration"]
    print(f"2 % lost, up to 50 ms late, both ways: frozen {frozen:.2f} s of {seconds:g}, {counts}")
    at_least("frames per second", counts["framesDecoded"] / seconds, 5)
    at_most("share of the time in which the picture stands still", frozen / seconds, 0.5)
