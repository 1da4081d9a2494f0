"""The port of media as a container publishes it, seen by a browser on another machine."""

from pathlib import Path

import pytest

from tests.deploy.live.engine import Engine
from tests.network.namespaces import network
from tests.network.test_browser import SELECTED_PROTOCOL, browsing, publish_and_view

pytestmark = pytest.mark.live

MACHINE, OTHER = "10.77.9.1", "10.77.9.2"

OPTIONS = (
    f"--publish={MACHINE}:8080:8080",
    f"--publish={MACHINE}:50000:50000/udp",
    f"--publish={MACHINE}:50000:50000/tcp",
    f"--env=PORTRAIT_ADVERTISED_ADDRESSES={MACHINE}",
)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_browser_on_another_machine_needs_one_port_and_no_udp(
    engine: Engine, image: str, tmp_path: Path, transport: str
) -> None:
    url = f"http://{MACHINE}:8080"
    with network() as net:
        other = net.add("other")
        net.plug(other, f"{OTHER}/24", f"{MACHINE}/24")
        if transport == "tcp":
            other.run("iptables -A OUTPUT -p udp -j DROP")
        with engine.serving(image, *OPTIONS) as container:
            container.wait_ready()
            async with browsing(other, url, tmp_path) as page:
                await publish_and_view(page, url)
                for connection in ("publisher.pc", "viewer.pc"):
                    assert await page.evaluate(f"({SELECTED_PROTOCOL})({connection})") == transport
