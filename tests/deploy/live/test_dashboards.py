"""Prometheus scrapes a running container under a real load; every question of the dashboards has an answer."""

import asyncio
import json
from asyncio import timeout
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from portrait.client import Client, ClientError, Picture
from tests.calls import jpeg
from tests.deploy.dashboards import BOARDS, annotations, choices, expressions, plain
from tests.deploy.live.engine import Container, Engine
from tests.deploy.live.scraping import Prometheus, alerts_of_the_files, scraping
from tests.deploy.live.streaming import receive, send, together
from tests.deploy.live.test_proxies import reached
from tests.deploy.pictures import draw
from tests.people import clip

pytestmark = pytest.mark.live

LIMIT = 3


@pytest.fixture
def container(engine: Engine, image: str) -> Iterator[Container]:
    options = ("--cpus=1", "--memory=700m", f"--env=PORTRAIT_MAX_SESSIONS={LIMIT}")
    with engine.serving(image, *options) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def prometheus(container: Container, tmp_path: Path) -> Iterator[Prometheus]:
    """At a test's pace."""
    with scraping(container.http, tmp_path, "1s") as running:
        yield running


@asynccontextmanager
async def load(container: Container) -> AsyncIterator[None]:
    """As many streams as there is room for: one in step, one in a hurry, one with bad pictures; a fourth is refused."""
    frames = [jpeg(frame) for frame in clip(640, 360, 30).frames]
    async with (
        Client(f"127.0.0.1:{container.grpc}") as client,
        client.open_stream(mode="mask") as steady,
        client.open_stream(mode="blur") as hurried,
        client.open_stream(mode="color") as broken,
    ):
        with pytest.raises(ClientError, match="sessions are open"):
            async with client.open_stream():
                pass
        async with together(
            send(steady, frames, 0.03),
            send(hurried, frames, 0.0),
            send(broken, [frames[0], Picture.jpeg(b"none")], 0.1),
            *(receive(stream) for stream in (steady, hurried, broken)),
        ):
            yield


async def test_every_panel_has_data(
    engine: Engine, container: Container, prometheus: Prometheus, tmp_path: Path
) -> None:
    missing = {plain(expression) for expression in expressions()}
    assert len(missing) > 30

    def answered() -> bool:
        for expression in sorted(missing):
            if prometheus.ask(expression):
                missing.discard(expression)
        return not missing

    def drawn() -> list[set[str]]:
        source = partial(prometheus.ask_range, seconds=60, step=1)
        return [set(draw(path, source, tmp_path / f"{path.stem}.png")) for path in BOARDS]

    async with load(container):
        try:
            async with timeout(90):
                while not await asyncio.to_thread(answered):
                    await asyncio.sleep(0.5)
        except TimeoutError:
            pytest.fail("no data for:\n" + "\n".join(sorted(missing)))
        by_mode = await asyncio.to_thread(prometheus.ask, "portrait_sessions_by_mode")
        assert {row["metric"]["mode"] for row in by_mode} == {"mask", "blur", "color"}
        refused = await asyncio.to_thread(prometheus.ask, "portrait_admission_refused_total > 0")
        assert [row["metric"]["reason"] for row in refused] == ["too_many_sessions"]
        titles = [{panel["title"] for panel in json.loads(path.read_text())["panels"]} for path in BOARDS]
        assert await asyncio.to_thread(drawn) == titles
    for path in BOARDS:
        assert len(np.unique(cv2.imread(str(tmp_path / f"{path.stem}.png")))) > 100, "an empty picture"
    for series, label in choices():
        expected = {"job": "portrait", "instance": f"127.0.0.1:{container.http}"}[label]
        assert {row["metric"][label] for row in prometheus.ask(series)} == {expected}
    # An annotation tells of a moment: here the box starts anew.
    assert not any(prometheus.ask(plain(expression)) for expression in annotations())
    engine.podman("restart", "--time", "10", container.name)
    told = [plain(expression) for expression in annotations()]
    await reached(lambda: all(prometheus.ask(expression) for expression in told), 60, "annotated")


async def test_alerts_are_quiet_on_a_healthy_box_and_tell_of_one_that_is_gone(
    engine: Engine, container: Container, prometheus: Prometheus
) -> None:
    def state(alert: str) -> list[str]:
        return [row["metric"]["alertstate"] for row in prometheus.ask(f'ALERTS{{alertname="{alert}"}}')]

    async with Client(f"127.0.0.1:{container.grpc}") as client, client.open_stream(mode="mask") as stream:
        frame = jpeg(clip(320, 240, 1).frames[0])
        for i in range(200):
            await stream.send(frame, i)
            assert await stream.receive() is not None
            await asyncio.sleep(0.03)
        await reached(lambda: bool(prometheus.ask("instance:portrait_frames:drop_ratio_rate5m")), 30, "recorded")
        assert prometheus.ask('ALERTS{alertstate="firing"}') == []
    engine.podman("kill", container.name)
    await reached(lambda: state("PortraitDown") == ["pending"], 30, "noticed")


def test_the_alerts_of_the_files_are_the_ones_in_force(prometheus: Prometheus) -> None:
    loaded = {rule["name"] for group in prometheus.read("rules", type="alert")["groups"] for rule in group["rules"]}
    assert loaded == alerts_of_the_files()
