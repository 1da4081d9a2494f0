"""The shipped nginx and HAProxy, run before replicas of this machine."""

import json
import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import SOCK_STREAM

from tests.deploy import DEPLOY, tool
from tests.deploy.live.engine import answers, wait_until
from tests.ports import free_ports


@dataclass(frozen=True)
class Replica:
    """A real service of its own process."""

    process: subprocess.Popen[str]
    http: int
    grpc: int

    @property
    def sessions(self) -> int:
        """How many are open."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/v1/sessions", timeout=5) as response:
            return len(json.load(response))


@dataclass(frozen=True)
class Proxy:
    """Where clients go."""

    http: int
    grpc: int


def replaced(text: str, *changes: tuple[str, str]) -> str:
    """The text with each change made; every one must be possible, so that the tested file is the shipped one."""
    for old, new in changes:
        assert old in text, f"{old!r} is not there"
        text = text.replace(old, new)
    return text


def doubled(text: str, replicas: list[Replica], pattern: str, line: Callable[[re.Match[str], int, int], str]) -> str:
    """The text with every `server` line once for each replica, as an operator would add a box."""

    def both(match: re.Match[str]) -> str:
        kind = "grpc" if match["port"] == "50051" else "http"
        return "".join(line(match, i, getattr(replica, kind)) for i, replica in enumerate(replicas))

    text, count = re.subn(pattern, both, text)
    assert count >= 2
    return text


def write_nginx(folder: Path, replicas: list[Replica], proxy: Proxy) -> list[str]:
    """The shipped files of nginx, their ports and boxes changed; the command that runs it."""
    boxes = doubled(
        (DEPLOY / "nginx/boxes.conf").read_text(),
        replicas,
        r"    server portrait:(?P<port>\d+)(?P<rest>.*)\n",
        lambda match, _, port: f"    server 127.0.0.1:{port}{match['rest']}\n",
    )
    (folder / "boxes.conf").write_text(boxes)
    site = replaced(
        (DEPLOY / "nginx/portrait.conf").read_text(),
        ("/etc/nginx/boxes.conf", str(folder / "boxes.conf")),
        ("listen 50052 ", f"listen 127.0.0.1:{proxy.grpc} "),
        ("listen 8081;", f"listen 127.0.0.1:{proxy.http};"),
    )
    (folder / "portrait.conf").write_text(site)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; worker_processes 1; events {{}}\n"
        f"http {{ access_log off; {temporary} include {folder}/portrait.conf; }}\n"
    )
    return [tool("nginx"), "-c", str(folder / "nginx.conf"), "-e", "stderr"]


def write_haproxy(folder: Path, replicas: list[Replica], proxy: Proxy) -> list[str]:
    """The shipped file of HAProxy, its ports and boxes changed; the command that runs it."""
    names = ("one", "two")
    text = doubled(
        replaced(
            (DEPLOY / "haproxy/haproxy.cfg").read_text(),
            ("bind :50052", f"bind 127.0.0.1:{proxy.grpc}"),
            ("bind :8081", f"bind 127.0.0.1:{proxy.http}"),
        ),
        replicas,
        r"    server one portrait:(?P<port>\d+)(?P<rest>.*)\n",
        lambda match, i, port: (
            f"    server {names[i]} 127.0.0.1:{port}{match['rest'].replace('/one', f'/{names[i]}')}\n"
        ),
    )
    (folder / "haproxy.cfg").write_text(text)
    return [tool("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")]


WRITERS = {"nginx": write_nginx, "haproxy": write_haproxy}


@contextmanager
def proxied(kind: str, folder: Path, replicas: list[Replica]) -> Iterator[Proxy]:
    proxy = Proxy(*free_ports(2, SOCK_STREAM))
    process = subprocess.Popen(WRITERS[kind](folder, replicas, proxy), stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: process.poll() is not None or answers(f"http://127.0.0.1:{proxy.http}/readyz"), 20, "up")
        assert process.poll() is None, process.communicate()[1]
        yield proxy
    finally:
        process.terminate()
        process.communicate(timeout=10)
