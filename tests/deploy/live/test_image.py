"""The image, built from the Dockerfile and run as an operator would."""

import gzip
import json
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.async_api import expect

from portrait.client import Client
from tests.browser import open_page, write_camera
from tests.calls import jpeg, pictures
from tests.deploy.live.engine import LIMITS, Container, Engine, answers, wait_until
from tests.pages import SHOWN, choose, person_is_kept, room_is, until
from tests.people import clip, iou

pytestmark = pytest.mark.live

PULLED_MB = 350
OFFLINE = ("run", "--rm", "--network=none", "--read-only", "--no-healthcheck", *LIMITS)


@pytest.fixture
def container(engine: Engine, image: str) -> Iterator[Container]:
    """With a core and a half, and memory, as an operator grants them."""
    with engine.serving(image, "--cpus=1.5", "--memory=700m") as running:
        yield running


def shell(engine: Engine, image: str, command: str) -> str:
    return engine.podman(*OFFLINE, "--entrypoint=sh", image, "-c", command)


def test_bench_and_doctor_need_no_network(engine: Engine, image: str) -> None:
    checks = json.loads(engine.podman(*OFFLINE, image, "doctor", "--json"))
    assert all(check["ok"] for check in checks if check["fatal"]), checks
    # What it must say there: without a network no client can send media.
    assert "candidates" in {check["name"] for check in checks if not check["ok"]}
    rows = json.loads(engine.podman(*OFFLINE, image, "bench", "--frames", "5", "--json"))
    assert len(rows) > 8


def test_nothing_that_builds_or_trains_is_in_it(engine: Engine, image: str) -> None:
    for name in ("gcc", "cc", "g++", "make", "git"):
        assert not shell(engine, image, f"command -v {name} || true").strip(), name
    packages = shell(engine, image, "ls /opt/portrait/lib/python3*/site-packages").split()
    assert not {"torch", "tensorflow", "keras", "pip", "setuptools", "hatchling", "pytest"} & set(packages)


def test_it_carries_its_bill_of_materials(engine: Engine, image: str) -> None:
    bill = json.loads(shell(engine, image, "cat /opt/portrait/sbom.cdx.json"))
    assert bill["bomFormat"] == "CycloneDX"
    listed = {component["name"].lower().replace("_", "-") for component in bill["components"]}
    assert {
        "portrait-server",
        "portrait-client",
        "aiortc",
        "grpcio",
        "numpy",
        "opencv-python-headless",
        "ai-edge-litert",
    } <= listed


def test_it_owns_nothing_and_writes_nowhere(engine: Engine, image: str) -> None:
    assert shell(engine, image, "id -u; id -g").split() == ["10001", "10001"]
    assert not shell(engine, image, "find /opt/portrait -writable ! -type l | head").strip()


def test_it_is_small_to_pull(engine: Engine, image: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "image.tar"
        engine.podman("save", "--output", archive, image, timeout=300)
        with archive.open("rb") as file:
            packed = sum(len(gzip.compress(chunk, 1)) for chunk in iter(lambda: file.read(2**24), b""))
        print(f"{archive.stat().st_size / 1e6:.0f} MB on disk, {packed / 1e6:.0f} MB compressed")
        assert packed < PULLED_MB * 1e6


async def test_it_is_ready_within_5_seconds_and_streams_good_masks(container: Container) -> None:
    assert container.wait_ready() < 5
    shown = clip(640, 360, 24)
    async with Client(f"127.0.0.1:{container.grpc}") as client:
        replies = [reply async for reply in client.stream(pictures(shown.frames, jpeg), every_frame=True)]
    assert [reply.id for reply in replies] == list(range(24))
    enlarged = [np.asarray(cv2.resize(reply.array, (640, 360)), np.uint8) for reply in replies]
    assert min(map(iou, shown.masks, enlarged)) > 0.8


async def test_its_page_puts_another_room_behind_the_person(container: Container, tmp_path: Path) -> None:
    container.wait_ready()
    camera = tmp_path / "camera.y4m"
    write_camera(camera, SHOWN)
    async with open_page(container.url, tmp_path / "profile", camera) as page:
        page.set_default_timeout(30_000)
        await page.click("#toggle")
        await expect(page.locator("#state")).to_have_text("Live")
        await choose(page, "color")
        await page.locator("#color").fill("#2040c0")
        await until(page, "before the colour", lambda seen: room_is((0xC0, 0x40, 0x20))(seen) and person_is_kept(seen))


def health_check(engine: Engine, image: str) -> list[str]:
    """The command that the image names."""
    check: list[str] = json.loads(engine.podman("image", "inspect", image))[0]["Healthcheck"]["Test"]
    assert check[0] == "CMD"
    return check[1:]


def test_its_health_check_says_ready(engine: Engine, image: str, container: Container) -> None:
    container.wait_ready()
    engine.podman("exec", container.name, *health_check(engine, image))


def test_its_health_check_says_ready_where_the_settings_file_asks_for_tls(
    engine: Engine, image: str, tmp_path: Path
) -> None:
    """The check knows the environment only. The box's authority is in a new volume, which its user may write."""
    (tmp_path / "portrait.toml").write_text('tls = "auto"\n')
    tmp_path.chmod(0o755)
    mounted = (f"--volume={tmp_path}:/etc/portrait:ro", "--volume=portrait-test-data:/var/lib/portrait")
    try:
        with engine.serving(image, *mounted, "--env=PORTRAIT_CONFIG=/etc/portrait/portrait.toml") as running:
            wait_until(lambda: '"serving"' in engine.logs(running.name), 30, "serving")
            assert not answers(running.url + "readyz"), "plain HTTP is answered"
            engine.podman("exec", running.name, *health_check(engine, image))
    finally:
        engine.podman("volume", "rm", "portrait-test-data")


async def test_sigterm_drains_a_stream_and_ends_with_0(engine: Engine, container: Container) -> None:
    container.wait_ready()
    frame = jpeg(clip(160, 120, 1).frames[0])
    async with Client(f"127.0.0.1:{container.grpc}") as client, client.open_stream(every_frame=True) as stream:
        await stream.send(frame, 1)
        assert await stream.receive() is not None
        engine.podman("stop", "--time", "20", container.name)
    assert container.inspect()["State"]["ExitCode"] == 0
    # Both of its streams; it prints what it listens on, and logs to the other.
    lines = [json.loads(line) for line in engine.logs(container.name).splitlines() if line.startswith("{")]
    warnings = [line["message"] for line in lines if line["level"] == "warning"]
    assert ["without authentication and TLS" in warning for warning in warnings] == [True]
    life = [line for line in lines if line["level"] == "info"]
    assert [line["message"] for line in life] == [
        "settings", "calibrated", "serving", "session opened",
        "stopping", "session asked to leave", "session closed", "drained",
    ]  # fmt: skip
    assert life[6]["reason"] == "the service stops"
    assert life[7]["sessions_cut"] == 1
    assert len(lines) == len(life) + len(warnings)


def test_it_has_what_traces_need(engine: Engine, image: str) -> None:
    with engine.serving(image, "--env=PORTRAIT_TRACING=true") as running:
        running.wait_ready()


def test_the_limits_are_the_kernels(engine: Engine, container: Container) -> None:
    container.wait_ready()
    with socket.create_connection(("127.0.0.1", container.http), 5) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    assert "portrait_cpu_budget_cores 1.5" in text
    assert "portrait_cpu_periods_total" in text
