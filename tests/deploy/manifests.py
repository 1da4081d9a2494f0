"""Kubernetes manifests, rendered."""

import json
import re
import shutil
import subprocess
from functools import cache
from typing import Any

import pytest
import yaml

from tests.deploy import DEPLOY

TREES = ("base", "overlays/media", "overlays/node-port", "overlays/udp-route", "overlays/stunner", "overlays/keda")

Manifest = dict[str, Any]


def needed_kubectl() -> str:
    """The path of kubectl; skips where there is none that knows today's kustomizations."""
    tool = shutil.which("kubectl")
    if tool is None:
        pytest.skip("kubectl is not installed")
    version = json.loads(
        subprocess.run([tool, "version", "--client", "--output=json"], capture_output=True, check=True).stdout
    )
    kustomize = re.match(r"v(\d+)", version.get("kustomizeVersion", "v0"))
    if kustomize is None or int(kustomize[1]) < 5:
        pytest.skip("kubectl's kustomize is older than 5")
    return tool


@cache
def _rendered(tool: str, tree: str) -> str:
    result = subprocess.run([tool, "kustomize", DEPLOY / "kubernetes" / tree], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def render(tree: str) -> list[Manifest]:
    """Every manifest of a kustomization."""
    return list(yaml.safe_load_all(_rendered(needed_kubectl(), tree)))


def pick(manifests: list[Manifest], kind: str) -> Manifest:
    """The only one of its kind."""
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def settings_map(manifests: list[Manifest]) -> Manifest:
    """The ConfigMap of the service's settings; the others are dashboards."""
    return pick(
        [each for each in manifests if "grafana_dashboard" not in each["metadata"].get("labels", {})], "ConfigMap"
    )
