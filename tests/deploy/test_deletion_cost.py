"""The helper that tells a ReplicaSet which pod has the fewest sessions, before an API that is played here."""

import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.deploy import DEPLOY

SCRIPT = DEPLOY / "kubernetes" / "components" / "deletion-cost" / "deletion_cost.py"
COST = "controller.kubernetes.io/pod-deletion-cost"


class Cluster(ThreadingHTTPServer):
    """An API with three pods, one of which does not answer, and the metrics of the two others."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.sessions = {"127.0.0.1": 8}
        self.pods: list[dict[str, Any]] = [
            {"metadata": {"name": "busy"}, "status": {"podIP": "127.0.0.1"}},
            {"metadata": {"name": "silent", "annotations": {COST: "5"}}, "status": {"podIP": "127.0.0.9"}},
            {"metadata": {"name": "starting"}, "status": {}},
            {"metadata": {"name": "leaving", "deletionTimestamp": "now"}, "status": {"podIP": "127.0.0.1"}},
        ]
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Cluster

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/metrics":
            count = self.server.sessions["127.0.0.1"]
            text = f'portrait_sessions{{transport="grpc"}} {count - 1}.0\nportrait_sessions{{transport="webrtc"}} 1.0\n'
            self._answer(f"{text}portrait_sessions_limit 64.0\n".encode())
        else:
            self.server.asked.append(self.path)
            self._answer(json.dumps({"items": self.server.pods}).encode())

    def do_PATCH(self) -> None:
        assert self.headers["Content-Type"] == "application/merge-patch+json"
        change = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        (pod,) = [pod for pod in self.server.pods if self.path.endswith(f"/{pod['metadata']['name']}")]
        pod["metadata"].setdefault("annotations", {}).update(change["metadata"]["annotations"])
        self._answer(b"{}")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def script(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The helper, which asks that cluster."""
    monkeypatch.setenv("KUBERNETES_API", f"http://127.0.0.1:{cluster.server_port}")
    monkeypatch.setenv("METRICS_PORT", str(cluster.server_port))
    monkeypatch.setenv("NAMESPACE", "masks")
    spec = importlib.util.spec_from_file_location("deletion_cost", Path(SCRIPT))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cost(cluster: Cluster, name: str) -> str | None:
    (pod,) = [pod for pod in cluster.pods if pod["metadata"]["name"] == name]
    found: str | None = pod["metadata"].get("annotations", {}).get(COST)
    return found


def test_each_pod_that_answers_has_its_sessions_written(cluster: Cluster, script: ModuleType) -> None:
    assert script.update() == 1
    assert [cost(cluster, name) for name in ("busy", "silent", "starting", "leaving")] == ["8", "5", None, None]
    assert cluster.asked == ["/api/v1/namespaces/masks/pods?labelSelector=app.kubernetes.io/name%3Dportrait"]


def test_a_number_is_written_again_when_it_has_changed_by_a_quarter(cluster: Cluster, script: ModuleType) -> None:
    for now, written in ((8, "8"), (9, "8"), (11, "11"), (10, "11"), (1, "1")):
        cluster.sessions["127.0.0.1"] = now
        script.update()
        assert cost(cluster, "busy") == written
    assert script.is_news(0, 1)
    assert script.is_news(1, 0)
    assert not script.is_news(0, 0)
