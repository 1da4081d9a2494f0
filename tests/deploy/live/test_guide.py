"""Every command of docs/operate/deployment.md, as written there; podman stands in for docker."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy import DEPLOY, ROOT, tool
from tests.deploy.live.engine import LIMITS, Engine
from tests.deploy.live.test_compose import stand_in_for_registries

pytestmark = pytest.mark.live

SITE = DEPLOY / "compose" / "site"
"""The operator's own folder, which the guide's commands make."""

BLOCKS = re.findall(
    r"^```sh\n(.*?)^```", (ROOT / "docs" / "operate" / "deployment.md").read_text(), re.MULTILINE | re.DOTALL
)

DOCKER = """#!/bin/bash
set -e
command=$1; shift
case $command in
build) exec podman build --format=docker --network=host {build} "$@" ;;
run) exec podman run --no-healthcheck {limits} "$@" ;;
compose)
  services=
  if [[ " $* " == *" up "* ]]; then services="portrait prometheus"; fi
  if [[ " $* " == *" proxy up "* ]]; then services+=" nginx"; fi
  if [[ " $* " == *" turn up "* ]]; then services+=" coturn"; fi
  exec podman-compose "$@" $services ;;
*) exec podman $command "$@" ;;
esac
"""
"""What podman does otherwise: its own image format has no health check, its timers want systemd; here a build shares
certificates with its host, a root without CAP_SYS_RESOURCE raises no limits."""


def commands(block: str) -> list[str]:
    """One by one; a backslash joins lines."""
    return block.replace("\\\n", " ").strip().splitlines()


@pytest.fixture
def environ(engine: Engine, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A PATH where docker is."""
    assert not SITE.exists(), "an operator's own tokens are there"
    stand_in_for_registries(engine, tmp_path)
    shim = tmp_path / "docker"
    shim.write_text(DOCKER.format(build=" ".join(engine.build_options()), limits=" ".join(LIMITS)))
    shim.chmod(0o755)
    places = [tmp_path, *{Path(tool(name)).parent for name in ("podman", "podman-compose", "promtool")}]
    found = {**engine.environ, "PATH": ":".join([*map(str, places), os.environ["PATH"]])}
    found |= {"TURN_SECRET": "secret", "ICE_URLS": "turn:127.0.0.1:3478?transport=udp"}
    yield found
    files = f"-f {DEPLOY}/compose/compose.yml -f {DEPLOY}/compose/lan.yml"
    down = f"docker compose {files} --profile proxy --profile turn down --volumes"
    for undo in ("docker rm --force portrait", down, f"rm -r {SITE}"):
        subprocess.run(["bash", "-c", undo], env=found, capture_output=True, cwd=ROOT)


def test_the_guide_has_commands() -> None:
    assert len(BLOCKS) >= 6
    assert commands(BLOCKS[0])[0] == "make image"


def test_every_command_of_the_guide_runs_as_written(engine: Engine, environ: dict[str, str]) -> None:
    said = {}
    for block in BLOCKS:
        for command in commands(block):
            done = subprocess.run(
                ["bash", "-c", command], env=environ, capture_output=True, text=True, cwd=ROOT, timeout=900
            )
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
            said[command] = done.stdout
    assert "portrait" not in engine.podman("ps", "--all", "--format={{.Names}}"), "the last commands clear up"
    assert {'{"status": "ready"}'} == {text for command, text in said.items() if command.startswith("curl")}
    assert any("CycloneDX" in text for text in said.values())
    assert any("kind: HorizontalPodAutoscaler" in text for text in said.values())
