"""buildah and podman with a storage of their own, so that nothing of the machine's is touched."""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy import ROOT, tool

LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000")
"""Given with every run: a root without CAP_SYS_RESOURCE, as inside a container, may not raise them to the defaults."""

CONTAINERS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""

STAND_IN = "localhost/python:3.11-slim-bookworm"
SHARED = ("/etc/ssl/certs", "/etc/pip.conf")
"""What a build shares with its host, where it is there: whose certificates to trust, and how to reach an index."""


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait for a condition; how long it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not {what} within {seconds:g} s"
        time.sleep(0.05)
    return time.monotonic() - started


def answers(url: str) -> bool:
    """Whether a GET gives 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _shared() -> list[str]:
    return [f"--volume={path}:{path}:ro" for path in SHARED if Path(path).exists()]


class Engine:
    """Builds and runs. `folder` keeps images between runs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        storage, containers = folder / "storage.conf", folder / "containers.conf"
        storage.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/images"\nrunroot = "{folder}/run"\n')
        containers.write_text(CONTAINERS)
        self._folder = folder
        self.environ = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(storage),
            "CONTAINERS_CONF": str(containers),
            "BUILDAH_ISOLATION": "chroot",
        }

    def podman(self, *arguments: str | Path, check: bool = True, timeout: float = 120) -> str:
        """Run podman; what it printed."""
        return self._call([tool("podman"), *arguments], check, timeout)

    def logs(self, name: str) -> str:
        """What a container has said: standard output and error."""
        command = [tool("podman"), "logs", name]
        done = subprocess.run(command, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def build(self, base: str | None, architecture: str = "") -> str:
        """Build the Dockerfile; the image's name. Without a base, on a stand-in made of Debian's packages.

        `architecture` is another than the machine's, as Debian names it: then the kernel must know an emulator for it.
        """
        command = ["bud", "--format=docker", "--layers", "--network=host", *self.build_options(base, architecture)]
        name = f"localhost/portrait:test{architecture}"
        self._call([tool("buildah"), *command, f"--file={ROOT}/Dockerfile", f"--tag={name}", ROOT], True, 3600)
        return name

    def build_options(self, base: str | None = None, architecture: str = "") -> list[str]:
        """The base and what a build shares with its host."""
        platform = [f"--arch={architecture}"] if architecture else []
        return [*platform, *_shared(), f"--build-arg=BASE={base or self._stand_in(architecture)}"]

    def stand_in(self, name: str, package: str, entry: str, context: Path) -> None:
        """An image of another project, made of Debian's package; nothing is done where the image itself is there."""
        if self._call([tool("podman"), "images", "--quiet", name], True, 60).strip():
            return
        context.mkdir()
        install = f"apt-get update && apt-get install -y --no-install-recommends {package}"
        (context / "Dockerfile").write_text(f"FROM {self._stand_in()}\nRUN {install}\nENTRYPOINT {entry}\n")
        self._call([tool("buildah"), "bud", "--network=host", *_shared(), f"--tag={name}", context], True, 600)

    def _stand_in(self, architecture: str = "") -> str:
        """Debian with Python: what is asked of python:3.11-slim-bookworm, where no registry can be reached."""
        name = STAND_IN + architecture
        if self._call([tool("podman"), "images", "--quiet", name], True, 60).strip():
            return name
        root, archive = self._folder / f"rootfs{architecture}", self._folder / f"rootfs{architecture}.tar"
        debootstrap: list[str | Path] = [tool("debootstrap"), "--variant=minbase"]
        imported = ["import"]
        if architecture:
            debootstrap.append(f"--arch={architecture}")
            imported.append(f"--arch={architecture}")
        debootstrap.append("--include=ca-certificates,python3,python3-venv")
        self._call([*debootstrap, "bookworm", root], True, 1800)
        caches = ("--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/lists/*")
        self._call([tool("tar"), "-C", root, *caches, "-cf", archive, "."], True, 300)
        self._call([tool("podman"), *imported, archive, name], True, 300)
        return name

    def _call(self, command: list[str | Path], check: bool, timeout: float) -> str:
        result = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=timeout)
        assert not check or result.returncode == 0, f"{command}:\n{result.stdout[-4000:]}{result.stderr[-4000:]}"
        return result.stdout

    def play(self, manifest: Path) -> None:
        """Run a Kubernetes manifest."""
        self.podman("kube", "play", manifest)

    def unplay(self, manifest: Path) -> None:
        """Remove what `play` made."""
        self.podman("kube", "down", manifest, timeout=400)

    @contextmanager
    def serving(self, image: str, *options: str) -> Iterator["Container"]:
        """A container that serves, published on free ports of 127.0.0.1; removed at the end."""
        published = ("--publish", "127.0.0.1::8080", "--publish", "127.0.0.1::50051")
        run = ("run", "--detach", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges")
        # Without systemd podman has no timer for the health check; the test runs it itself.
        name = self.podman(*run, "--no-healthcheck", *LIMITS, *published, *options, image).strip()
        try:
            ports = json.loads(self.podman("inspect", name))[0]["NetworkSettings"]["Ports"]
            http, grpc = (int(ports[f"{port}/tcp"][0]["HostPort"]) for port in (8080, 50051))
            yield Container(self, name, http, grpc)
        finally:
            self.podman("rm", "--force", "--time", "0", name)


@dataclass(frozen=True)
class Container:
    """A running container."""

    engine: Engine
    name: str
    http: int
    grpc: int

    @property
    def url(self) -> str:
        """Its page."""
        return f"http://127.0.0.1:{self.http}/"

    def wait_ready(self, seconds: float = 30) -> float:
        """Wait until it is ready; how long that took."""
        try:
            return wait_until(lambda: answers(self.url + "readyz"), seconds, "ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.engine.logs(self.name)}") from None

    def inspect(self) -> dict[str, Any]:
        """What podman knows of it."""
        found: dict[str, Any] = json.loads(self.engine.podman("inspect", self.name))[0]
        return found
