"""Writes the number of each pod's sessions into its annotation controller.kubernetes.io/pod-deletion-cost."""

import json
import logging
import os
import re
import ssl
import time
import urllib.request
from pathlib import Path
from typing import Any

ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SECONDS = 30.0
"""Between two rounds. Kubernetes asks for few changes: a number is written when it has changed by a quarter."""

API = os.environ.get("KUBERNETES_API", "https://kubernetes.default.svc")
PODS = f"{API}/api/v1/namespaces/{os.environ.get('NAMESPACE', 'portrait')}/pods"
METRICS_PORT = os.environ.get("METRICS_PORT", "8080")


def call(method: str, url: str, body: Any = None) -> Any:
    """Ask the cluster's API."""
    headers = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"} if API.startswith("https") else {}
    if body is not None:
        headers["Content-Type"] = "application/merge-patch+json"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    trusted = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")) if API.startswith("https") else None
    with urllib.request.urlopen(request, timeout=10, context=trusted) as answer:
        return json.load(answer)


def sessions(address: str) -> int:
    """How many sessions the pod of an address has."""
    host = f"[{address}]" if ":" in address else address
    with urllib.request.urlopen(f"http://{host}:{METRICS_PORT}/metrics", timeout=2) as answer:
        text = answer.read().decode()
    return round(sum(map(float, re.findall(r"^portrait_sessions\{.*\} (\S+)", text, re.MULTILINE))))


def is_news(before: int | None, now: int) -> bool:
    """Whether a number differs enough from the one that is written."""
    return before is None or (not before) != (not now) or abs(now - before) > max(before, now) / 4


def update() -> int:
    """Write the numbers that have changed; how many those are. A pod that does not answer keeps its number."""
    written = 0
    for pod in call("GET", f"{PODS}?labelSelector=app.kubernetes.io/name%3Dportrait")["items"]:
        name, address = pod["metadata"]["name"], pod.get("status", {}).get("podIP")
        if not address or "deletionTimestamp" in pod["metadata"]:
            continue
        try:
            now = sessions(address)
            before = pod["metadata"].get("annotations", {}).get(ANNOTATION)
            if is_news(int(before) if before else None, now):
                call("PATCH", f"{PODS}/{name}", {"metadata": {"annotations": {ANNOTATION: str(now)}}})
                written += 1
        except OSError as error:
            logging.warning("%s: %s", name, error)
    return written


def main() -> None:
    """Update until stopped."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    while True:
        try:
            if written := update():
                logging.info("%d pods have another number of sessions", written)
        except (OSError, ValueError) as error:
            logging.error("the cluster's API does not answer: %s", error)
        time.sleep(SECONDS)


if __name__ == "__main__":
    main()
