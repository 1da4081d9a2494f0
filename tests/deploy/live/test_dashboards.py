"""Prometheus scrapes a running container under a real load; every question of the dashboards has an answer."""

import asyncio
import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from portrait.client import Client, ClientError, Picture
from tests.deploy import DEPLOY, tool
from tests.deploy.dashboards import expressions, plain
from tests.deploy.live.engine import Container, Engine, answers, wait_until
from tests.deploy.live.proxies import free_port, replaced
from tests.deploy.live.test_proxies import reached
from tests.people import clip
from tests.test_grpc import jpeg

pytestmark = pytest.mark.live

LIMIT = 3


@pytest.fixture
def container(engine: Engine, image: str) -> Iterator[Container]:
    options = ("--cpus=1", "--memory=700m", f"--env=PORTRAIT_MAX_SESSIONS={LIMIT}")
    with engine.serving(image, *options) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def prometheus(container: Container, tmp_path: Path) -> Iterator[str]:
    """The shipped configuration, its target the container and its pace a test's."""
    folder = tmp_path / "prometheus"
    shutil.copytree(DEPLOY / "prometheus", folder)
    configuration = folder / "prometheus.yml"
    configuration.write_text(
        replaced(configuration.read_text(), ("scrape_interval: 5s", "scrape_interval: 1s"), ("15s", "1s"))
    )
    targets = folder / "targets" / "portrait.yml"
    targets.write_text(replaced(targets.read_text(), ("portrait:8080", f"127.0.0.1:{container.http}")))
    address = f"127.0.0.1:{free_port()}"
    command = [tool("prometheus"), f"--config.file={configuration}", f"--storage.tsdb.path={tmp_path}/data"]
    process = subprocess.Popen([*command, f"--web.listen-address={address}"], stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: process.poll() is not None or answers(f"http://{address}/-/ready"), 30, "up")
        assert process.poll() is None, process.communicate()[1]
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=30)


def ask(prometheus: str, expression: str) -> list[dict[str, Any]]:
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"http://{prometheus}/api/v1/query?{query}", timeout=10) as response:
        found: list[dict[str, Any]] = json.load(response)["data"]["result"]
        return found


@asynccontextmanager
async def load(container: Container) -> AsyncIterator[None]:
    """As many streams as there is room for: one in step, one in a hurry, one with bad pictures; a fourth is refused."""
    frames = [jpeg(frame) for frame in clip(640, 360, 30).frames]
    async with (
        Client(f"127.0.0.1:{container.grpc}") as client,
        asyncio.TaskGroup() as group,
        client.open_stream(mode="mask") as steady,
        client.open_stream(mode="blur") as hurried,
        client.open_stream(mode="color") as broken,
    ):
        with pytest.raises(ClientError, match="sessions are open"):
            async with client.open_stream():
                pass
        tasks = [
            group.create_task(send_for_ever(steady, frames, 0.03)),
            group.create_task(send_for_ever(hurried, frames, 0.0)),
            group.create_task(send_for_ever(broken, [frames[0], Picture.jpeg(b"none")], 0.1)),
        ]
        tasks += [group.create_task(read_for_ever(stream)) for stream in (steady, hurried, broken)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def send_for_ever(stream: Any, frames: list[Picture], pause: float) -> None:
    for i in range(10**9):
        await stream.send(frames[i % len(frames)], i)
        await asyncio.sleep(pause)


async def read_for_ever(stream: Any) -> None:
    while await stream.receive() is not None:
        pass


async def test_every_panel_has_data(container: Container, prometheus: str) -> None:
    missing = {plain(expression) for expression in expressions()}
    assert len(missing) > 30

    def answered() -> bool:
        for expression in sorted(missing):
            if ask(prometheus, expression):
                missing.discard(expression)
        return not missing

    async with load(container):
        try:
            async with asyncio.timeout(90):
                while not await asyncio.to_thread(answered):
                    await asyncio.sleep(0.5)
        except TimeoutError:
            pytest.fail("no data for:\n" + "\n".join(sorted(missing)))
        by_mode = await asyncio.to_thread(ask, prometheus, "portrait_sessions_by_mode")
        assert {row["metric"]["mode"] for row in by_mode} == {"mask", "blur", "color"}
        refused = await asyncio.to_thread(ask, prometheus, "portrait_admission_refused_total > 0")
        assert [row["metric"]["reason"] for row in refused] == ["too_many_sessions"]


async def test_alerts_are_quiet_on_a_healthy_box_and_tell_of_one_that_is_gone(
    engine: Engine, container: Container, prometheus: str
) -> None:
    def state(alert: str) -> list[str]:
        return [row["metric"]["alertstate"] for row in ask(prometheus, f'ALERTS{{alertname="{alert}"}}')]

    async with Client(f"127.0.0.1:{container.grpc}") as client, client.open_stream(mode="mask") as stream:
        frame = jpeg(clip(320, 240, 1).frames[0])
        for i in range(200):
            await stream.send(frame, i)
            assert await stream.receive() is not None
            await asyncio.sleep(0.03)
        await reached(lambda: bool(ask(prometheus, "instance:portrait_frames:drop_ratio_rate5m")), 30, "recorded")
        assert ask(prometheus, "ALERTS") == []
    engine.podman("kill", container.name)
    await reached(lambda: state("PortraitDown") == ["pending"], 30, "noticed")


def test_the_alerts_of_the_files_are_the_ones_in_force(prometheus: str) -> None:
    with urllib.request.urlopen(f"http://{prometheus}/api/v1/rules?type=alert", timeout=10) as response:
        groups = json.load(response)["data"]["groups"]
    loaded = {rule["name"] for group in groups for rule in group["rules"]}
    rules = yaml.safe_load((DEPLOY / "prometheus/rules/alerts.yml").read_text())["groups"][0]["rules"]
    assert loaded == {rule["alert"] for rule in rules}
