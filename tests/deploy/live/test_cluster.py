"""Three pods in networks of their own behind a balancer that picks one at random and sets no cookie."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import tool
from tests.network.namespaces import Namespace, missing, network
from tests.timing import at_most

pytestmark = [pytest.mark.live, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

PODS = 3
BACK_SECONDS = 2.0
SECRET = "a secret of the tests, long enough to be one"

HAPROXY = """
global
    tune.bufsize 131072
defaults
    mode http
    timeout connect 500ms
    timeout client 1h
    timeout server 1h
    option redispatch 1
    retries 3
    retry-on conn-failure empty-response 503
frontend http
    bind :8080
    default_backend http
frontend grpc
    bind :50051 proto h2
    default_backend grpc
backend http
    balance random
    option http-buffer-request
    http-request disable-l7-retry if {{ path_beg /v1/ }}
    option httpchk GET /readyz
    default-server check inter 250ms fall 1 rise 1 on-marked-down shutdown-sessions
{http}
backend grpc
    balance random
{grpc}
"""

NGINX = """
daemon off; pid {folder}/pid; error_log stderr; worker_processes 1; events {{}}
http {{
  access_log off; {temporary}
  upstream http {{ random; {http} }}
  upstream grpc {{ random; {grpc} }}
  proxy_connect_timeout 500ms; grpc_connect_timeout 500ms;
  server {{
    listen 8080;
    location / {{
      proxy_pass http://http; proxy_http_version 1.1; proxy_set_header Host $http_host;
      proxy_next_upstream error timeout http_503 non_idempotent;
    }}
  }}
  server {{
    listen 50051 http2;
    location / {{ grpc_pass grpc://grpc; grpc_read_timeout 1h; grpc_send_timeout 1h; client_body_timeout 1h; client_max_body_size 0; }}
  }}
}}
"""  # noqa: E501  as such files are written


def haproxy(folder: Path, addresses: list[str]) -> list[str]:
    """The command that runs it, with its file written."""
    lines = {
        "http": "\n".join(f"    server pod{i} {address}:8080" for i, address in enumerate(addresses)),
        "grpc": "\n".join(
            f"    server pod{i} {address}:50051 proto h2 track http/pod{i} on-marked-down shutdown-sessions"
            for i, address in enumerate(addresses)
        ),
    }
    (folder / "haproxy.cfg").write_text(HAPROXY.format(**lines))
    return [tool("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")]


def nginx(folder: Path, addresses: list[str]) -> list[str]:
    """The command that runs it, with its file written."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    text = NGINX.format(
        folder=folder,
        temporary=" ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds),
        http=" ".join(f"server {address}:8080 max_fails=1 fail_timeout=1s;" for address in addresses),
        grpc=" ".join(f"server {address}:50051 max_fails=1 fail_timeout=1s;" for address in addresses),
    )
    (folder / "nginx.conf").write_text(text)
    return [tool("nginx"), "-c", str(folder / "nginx.conf"), "-e", "stderr"]


@contextmanager
def running(command: list[str], ending: signal.Signals, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """A process for the length of the block; nginx needs another signal than a pod that would drain."""
    process = subprocess.Popen(
        ["env", *(f"{name}={value}" for name, value in environ.items()), *command], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.send_signal(ending)
        process.communicate(timeout=30)


@contextmanager
def clustered(folder: Path, balancer: Any) -> Iterator[tuple[Namespace, dict[str, int], dict[str, str]]]:
    """A client's network, which reaches the balancer at 10.88.0.1; each pod's process, and what cuts its network."""
    with network() as net, ExitStack() as stack:
        router, client = net.add("router"), net.add("client")
        net.join(router, client, ("10.88.0.1/24", "10.88.0.2/24"))
        client.run("ip route add default via 10.88.0.1")
        router.run("sysctl -qw net.ipv4.ip_forward=1")
        addresses = [f"10.88.{number + 1}.2" for number in range(PODS)]
        pods: dict[str, int] = {}
        cuts: dict[str, str] = {}
        started = []
        for number, address in enumerate(addresses):
            place = net.add(f"pod{number}")
            net.join(router, place, (f"10.88.{number + 1}.1/24", f"{address}/24"))
            place.run(f"ip route add default via 10.88.{number + 1}.1")
            serve = [
                sys.executable, "-m", "portrait", "serve", "--json", "--insecure", "--host", address, "--workers", "1",
                "--drain-seconds", "8", "--cluster-address", address, "--cluster-peers", ",".join(addresses),
            ]  # fmt: skip
            process = stack.enter_context(
                running(place.command(*serve), signal.SIGKILL, PORTRAIT_CLUSTER_SECRET=SECRET)
            )
            started.append(process)
            pods[address] = process.pid
            cuts[address] = " ".join(place.command("iptables", "-P", "INPUT", "DROP"))
        for process in started:
            assert process.stdout is not None
            assert '"page"' in process.stdout.readline(), "a pod did not start"
        stack.enter_context(running(router.command(*balancer(folder, addresses)), signal.SIGTERM))
        yield client, pods, cuts


def clients(place: Namespace, pods: dict[str, int], *options: str) -> dict[str, Any]:
    """What the clients have measured."""
    given = [f"--pod={address}={process}" for address, process in pods.items()]
    command = [sys.executable, "-m", "tests.deploy.live.cluster_clients", "--balancer", "10.88.0.1", *given, *options]
    done = subprocess.run(place.command(*command), stdout=subprocess.PIPE, text=True, timeout=280)
    assert done.returncode == 0
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(found, indent=1))
    return found


@pytest.mark.parametrize("balancer", [haproxy, nginx])
def test_any_balancer_serves_a_cluster_while_pods_die_and_drain(tmp_path: Path, balancer: Any) -> None:
    with clustered(tmp_path, balancer) as (client, pods, _):
        found = clients(client, pods)
    assert found["later_requests"]["statuses"] == [200]
    assert found["later_requests"]["passed_on"] > 0
    assert found["drained"]["statuses"] == [200]
    for what in ("killed", "drained"):
        assert found[what]["least_iou"] > 0.9, "a mask jumped: the prior was lost"
        at_most(f"{what}: longest gap of a gRPC stream, seconds", found[what]["longest_gap"], BACK_SECONDS)
    at_most("a killed pod's stream is published again after, seconds", found["killed"]["published_again"], BACK_SECONDS)
    at_most("and seen again after, seconds", found["killed"]["viewed_again"], BACK_SECONDS)


def test_a_pod_whose_node_vanishes_holds_nobody_up(tmp_path: Path) -> None:
    """Its address does not refuse: it does not answer. HAProxy cuts the streams of a pod that fails its check."""
    with clustered(tmp_path, haproxy) as (client, pods, cuts):
        found = clients(client, pods, *(f"--cut={address}={command}" for address, command in cuts.items()))["vanished"]
    assert found["nobody"] == "NOT_PUBLISHED"
    assert found["least_iou"] > 0.9
    at_most("vanished: longest gap of a gRPC stream, seconds", found["longest_gap"], BACK_SECONDS)
    at_most("vanished: its session is told to be lost after, seconds", found["told_lost"], 2 * BACK_SECONDS)
    at_most("vanished: a search takes, seconds", found["searched"], BACK_SECONDS)
