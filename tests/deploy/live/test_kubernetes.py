"""The rendered Deployment, run by podman: no cluster, but Kubernetes' own file."""

import asyncio
import json
import urllib.request
from pathlib import Path
from socket import SOCK_STREAM

import pytest
import yaml

from portrait.client import Client
from tests.calls import jpeg, pictures
from tests.deploy.live.engine import Engine, answers, wait_until
from tests.deploy.manifests import pick, render, settings_map
from tests.people import clip
from tests.ports import free_ports

pytestmark = pytest.mark.live


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        text: str = response.read().decode()
        return text


async def test_the_rendered_deployment_serves_drains_and_goes(engine: Engine, image: str, tmp_path: Path) -> None:
    manifests = render("overlays/media")
    deployment, settings = pick(manifests, "Deployment"), settings_map(manifests)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["image"] = image
    # What podman 4 does otherwise than a cluster: it refuses ports beside the host's network, and probes need systemd.
    for key in ("ports", "startupProbe", "livenessProbe", "readinessProbe"):
        del container[key]
    # Alone: podman 4 knows no address of a pod before it runs.
    del container["env"], settings["data"]["PORTRAIT_CLUSTER_PEERS"]
    http, grpc = free_ports(2, SOCK_STREAM)
    settings["data"] |= {"PORTRAIT_HTTP_PORT": str(http), "PORTRAIT_GRPC_PORT": str(grpc)}
    file = tmp_path / "deployment.yaml"
    file.write_text(yaml.safe_dump_all([settings, deployment]))
    engine.play(file)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{http}/readyz"), 30, "ready")
        async with Client(f"127.0.0.1:{grpc}") as client:
            replies = [
                reply async for reply in client.stream(pictures(clip(320, 240, 5).frames, jpeg), every_frame=True)
            ]
        assert len(replies) == 5
        numbers = await asyncio.to_thread(read, f"http://127.0.0.1:{http}/metrics")
        assert "portrait_cpu_budget_cores 2.0" in numbers
        assert "portrait_sessions_limit 64.0" in numbers
        (name,) = engine.podman("ps", "--filter=ancestor=" + image, "--format={{.Names}}").split()
        running = json.loads(engine.podman("inspect", name))[0]
        assert running["HostConfig"]["ReadonlyRootfs"] is True
        assert running["Config"]["User"] == "10001:10001"
        assert running["HostConfig"]["Memory"] == 2**30
        assert running["EffectiveCaps"] in (None, [])
        engine.podman("stop", "--time", "20", name)
        assert json.loads(engine.podman("inspect", name))[0]["State"]["ExitCode"] == 0
    finally:
        engine.unplay(file)
