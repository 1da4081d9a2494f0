"""A Prometheus with the shipped configuration, and what it is asked."""

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.deploy import DEPLOY, tool
from tests.deploy.live.engine import answers, wait_until
from tests.deploy.live.proxies import replaced
from tests.deploy.pictures import Series
from tests.ports import free_port


def alerts_of_the_files() -> set[str]:
    """The names of the shipped alerts."""
    groups = yaml.safe_load((DEPLOY / "prometheus/rules/alerts.yml").read_text())["groups"]
    return {rule["alert"] for group in groups for rule in group["rules"]}


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    address: str

    def read(self, path: str, **query: str) -> Any:
        """The data of an answer of its HTTP API."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.load(response)["data"]

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """The answer of this moment."""
        found: list[dict[str, Any]] = self.read("query", query=expression)["result"]
        return found

    def ask_range(self, expression: str, seconds: float, step: float) -> list[Series]:
        """The answers of the last so many seconds."""
        end = time.time()
        span = {"start": str(end - seconds), "end": str(end), "step": str(step)}
        found = []
        for row in self.read("query_range", query=expression, **span)["result"]:
            points = np.array(row["values"], np.float64)
            known = points[np.isfinite(points[:, 1])]
            if len(known):
                labels = {key: value for key, value in row["metric"].items() if key != "__name__"}
                found.append(Series(labels, known[:, 0], known[:, 1]))
        return found


@contextmanager
def scraping(port: int, folder: Path, pace: str) -> Iterator[Prometheus]:
    """The shipped configuration; its target is 127.0.0.1:`port`, its pace another than the shipped one."""
    configured = folder / "prometheus"
    shutil.copytree(DEPLOY / "prometheus", configured)
    configuration = configured / "prometheus.yml"
    configuration.write_text(
        replaced(configuration.read_text(), ("scrape_interval: 5s", f"scrape_interval: {pace}"), ("15s", pace))
    )
    targets = configured / "targets" / "portrait.yml"
    targets.write_text(replaced(targets.read_text(), ("portrait:8080", f"127.0.0.1:{port}")))
    address = f"127.0.0.1:{free_port()}"
    command = [tool("prometheus"), f"--config.file={configuration}", f"--storage.tsdb.path={folder}/data"]
    command.append("--enable-feature=exemplar-storage")
    process = subprocess.Popen([*command, f"--web.listen-address={address}"], stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: process.poll() is not None or answers(f"http://{address}/-/ready"), 30, "up")
        assert process.poll() is None, process.communicate()[1]
        yield Prometheus(address)
    finally:
        process.terminate()
        process.communicate(timeout=30)
