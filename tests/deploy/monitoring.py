"""Rules and dashboards as objects of a cluster, made of the files: `python -m tests.deploy.monitoring` writes them.

kubectl reads no file outside of a kustomization's own folder, hence the copies.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.deploy import DEPLOY
from tests.deploy.dashboards import BOARDS

FOLDER = DEPLOY / "kubernetes" / "components" / "monitoring"
MADE = "# Made by `make monitoring` of {}.\n"


def prometheus_rule() -> str:
    """The recording rules and alerts as a PrometheusRule of the Prometheus operator."""
    files = [DEPLOY / "prometheus" / "rules" / name for name in ("recording.yml", "alerts.yml")]
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    # A group's name is its own within a PrometheusRule.
    assert len({group["name"] for group in groups}) == len(groups)
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "portrait"},
        "spec": {"groups": groups},
    }
    return MADE.format("deploy/prometheus/rules") + _text(rule)


def dashboards() -> str:
    """A ConfigMap for each dashboard, with the label by which Grafana's chart finds it."""
    maps = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": f"portrait-dashboard-{path.stem}",
                "labels": {"grafana_dashboard": "1"},
                "annotations": {"grafana_folder": "Portrait"},
            },
            "data": {f"portrait-{path.name}": json.dumps(json.loads(path.read_text()), indent=1) + "\n"},
        }
        for path in BOARDS
    ]
    return MADE.format("deploy/grafana/dashboards") + "---\n".join(map(_text, maps))


class _Dumper(yaml.SafeDumper):
    pass


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Texts of several lines as blocks, not as one long line in quotes."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _block)


def _text(document: dict[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=4096)


FILES = {"prometheus-rule.yaml": prometheus_rule, "dashboards.yaml": dashboards}


def write(folder: Path = FOLDER) -> None:
    """Write the files anew."""
    for name, make in FILES.items():
        (folder / name).write_text(make())


if __name__ == "__main__":
    write()
