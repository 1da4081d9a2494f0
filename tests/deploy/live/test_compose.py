"""The compose file, run by podman-compose. Where no registry can be reached, Debian's packages stand in for the others.

Grafana is no package of Debian: what is provisioned to it is held to its form by tests/deploy/test_grafana.py.
"""

import os
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from portrait.client import Client
from tests.calls import jpeg, pictures
from tests.deploy import DEPLOY, tool
from tests.deploy.live.engine import Engine, answers, wait_until
from tests.deploy.live.scraping import Prometheus, alerts_of_the_files
from tests.deploy.live.test_proxies import ask
from tests.people import clip
from tests.rtc import Camera, viewer

pytestmark = pytest.mark.live

ADDRESS = "127.0.0.7"
"""Where everything is published that LISTEN publishes: of the loopback, and nobody else's."""

STAND_INS = {
    "docker.io/prom/prometheus:v3.5.0": ("prometheus", '["prometheus"]'),
    "docker.io/library/nginx:1.28-alpine": ("nginx-light", '["nginx", "-g", "daemon off;"]'),
    "docker.io/coturn/coturn:4.6": ("coturn", '["turnserver"]'),
}
"""Image of the compose file: (Debian's package, entry point)."""

STARTED = ("portrait", "prometheus", "nginx", "coturn")


@dataclass(frozen=True)
class Compose:
    """The compose file with an environment."""

    environ: dict[str, str]

    def __call__(self, *arguments: str) -> None:
        file, profiles = DEPLOY / "compose" / "compose.yml", ("--profile=proxy", "--profile=turn")
        command = [tool("podman-compose"), "-f", str(file), *profiles, *arguments]
        result = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]


def stand_in_for_registries(engine: Engine, folder: Path) -> None:
    """Have an image by each of the names, the real one or Debian's."""
    for number, (name, (package, entry)) in enumerate(STAND_INS.items()):
        engine.stand_in(name, package, entry, folder / f"stand-in-{number}")


@pytest.fixture(scope="module")
def compose(engine: Engine, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """All but Grafana, up; one variable of `.env` after the other as an operator would set it."""
    stand_in_for_registries(engine, tmp_path_factory.mktemp("stand-ins"))
    wishes = {"LISTEN": ADDRESS, "ADVERTISED_ADDRESS": ADDRESS, "PORTRAIT_IMAGE": image}
    wishes |= {"TURN_SECRET": "secret", "ICE_URLS": f"turn:{ADDRESS}:3478?transport=udp"}
    running = Compose({**engine.environ, "PATH": f"{Path(tool('podman')).parent}:{os.environ['PATH']}", **wishes})
    running("up", "--detach", *STARTED)
    try:
        wait_until(lambda: answers(f"http://{ADDRESS}:8080/readyz"), 30, "ready")
        yield running
    finally:
        running("down", "--volumes", "--timeout", "1")


async def test_prometheus_finds_the_service_by_its_name_and_has_the_rules(compose: Compose) -> None:
    async with Client(f"{ADDRESS}:50051") as client:
        frames = clip(320, 240, 3).frames
        assert len([reply async for reply in client.stream(pictures(frames, jpeg), every_frame=True)]) == 3
    prometheus = Prometheus("127.0.0.1:9090")
    question = 'portrait_frames_total{instance="portrait:8080", result="done", transport="grpc"} >= 3'
    wait_until(lambda: bool(prometheus.ask(question)), 60, "scraped")
    loaded = {rule["name"] for group in prometheus.read("rules", type="alert")["groups"] for rule in group["rules"]}
    assert loaded == alerts_of_the_files()


async def test_media_goes_through_the_one_published_port_to_the_one_advertised_address(compose: Compose) -> None:
    """The bridge's own addresses, by which this machine could go past the published ports, are taken out."""
    async with viewer(f"http://{ADDRESS}:8080", Camera(clip(320, 240, 10))) as browser:
        response = await browser.post(await browser.offer(), mode="mask")
        assert response.status == 201
        answer = await response.text()
        candidates = re.findall(r"^a=candidate:\S+ \d \S+ \d+ (\S+) (\d+) .*$", answer, re.MULTILINE)
        assert ADDRESS in {address for address, _ in candidates}
        assert {port for _, port in candidates} == {"50000"}
        only = re.sub(rf"^a=candidate:(?!\S+ \d \S+ \d+ {re.escape(ADDRESS)} ).*\r\n", "", answer, flags=re.MULTILINE)
        assert sorted(re.findall(r"^a=candidate:\S+ 1 (\S+)", only, re.MULTILINE)) == ["tcp", "udp"]
        await browser.take(only)
        for _ in range(5):
            frame = await browser.frame()
        assert (frame.width, frame.height) == (320, 240)


async def test_nginx_stands_before_it_by_a_profile(compose: Compose) -> None:
    assert ask("GET", f"http://{ADDRESS}:80/readyz")[0] == 200
    assert ask("GET", f"http://{ADDRESS}:80/metrics")[0] == 404
    async with Client(f"{ADDRESS}:50052") as client:
        assert (await client.segment(jpeg(clip(320, 240, 1).frames[0]))).array.any()


def test_coturn_answers_by_a_profile(compose: Compose, engine: Engine) -> None:
    said = engine.podman("exec", "portrait_coturn_1", "turnutils_stunclient", "127.0.0.1")
    assert "UDP reflexive addr" in said
    log = engine.logs("portrait_coturn_1")
    assert "TURN_SECRET is empty" not in log


def test_the_service_has_the_limits_and_rights_of_the_file(compose: Compose, engine: Engine) -> None:
    shown = "{{.HostConfig.ReadonlyRootfs}} {{.EffectiveCaps}}"
    found = engine.podman("inspect", "portrait_portrait_1", "--format", shown)
    assert found.split() == ["true", "[]"]
    with urllib.request.urlopen(f"http://{ADDRESS}:8080/metrics", timeout=5) as response:
        numbers = response.read().decode()
    assert "portrait_cpu_budget_cores 2.0" in numbers
    assert "portrait_sessions_limit 64.0" in numbers
