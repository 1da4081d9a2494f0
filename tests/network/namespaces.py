"""Network namespaces, joined by virtual cables, for the length of a block."""

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TOOLS = ("ip", "iptables", "ethtool", "sysctl", "tc")


def missing() -> str | None:
    """Why there can be no namespaces here; None: there can."""
    if os.geteuid() != 0:
        return "not root"
    if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"{', '.join(absent)} not installed (make system-packages)"
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"no network namespaces here: {tried.stderr.strip()}"


@dataclass(frozen=True)
class Namespace:
    """One network: its own interfaces, routes and firewall."""

    name: str

    def command(self, *words: str | Path) -> list[str]:
        """What runs a command inside."""
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def run(self, line: str) -> None:
        """Run a command inside, words apart by spaces; it must succeed."""
        _run(self.command(*line.split()))

    def wrapper(self, program: str | Path, file: Path) -> Path:
        """An executable file that runs `program` inside."""
        file.write_text(f'#!/bin/sh\nexec ip netns exec {self.name} {program} "$@"\n')
        file.chmod(0o755)
        return file


@dataclass
class Network:
    """What one test has built. Opened by `network`."""

    prefix: str
    made: list[Namespace] = field(default_factory=list)
    cables: Iterator[int] = field(default_factory=itertools.count)

    def add(self, name: str) -> Namespace:
        """A namespace without any way out."""
        namespace = Namespace(f"{self.prefix}-{name}")
        _run(["ip", "netns", "add", namespace.name])
        self.made.append(namespace)
        # Inherited from the machine otherwise, which may be a router.
        namespace.run("sysctl -qw net.ipv4.ip_forward=0")
        namespace.run("ip link set lo up")
        return namespace

    def join(self, one: Namespace, other: Namespace, *addresses: tuple[str, str]) -> tuple[str, str]:
        """A cable between two, with an address (and its prefix length) for each end; the interfaces' names."""
        number = next(self.cables)
        names = f"c{number}a", f"c{number}b"
        ends = ["ip", "link", "add", names[0], "netns", one.name, "type", "veth", "peer", "name", names[1]]
        _run([*ends, "netns", other.name])
        for side, namespace in enumerate((one, other)):
            for pair in addresses:
                # nodad: an IPv6 address would be tentative for a second.
                nodad = " nodad" if ":" in pair[side] else ""
                namespace.run(f"ip address add {pair[side]} dev {names[side]}{nodad}")
            namespace.run(f"ip link set {names[side]} up")
        return names

    def plug(self, namespace: Namespace, inside: str, outside: str) -> None:
        """A cable from a namespace to the machine itself, with an address (and its prefix length) for each end."""
        names = f"c{next(self.cables)}", f"p{os.getpid()}n{next(_numbers)}"
        _run(["ip", "link", "add", names[0], "netns", namespace.name, "type", "veth", "peer", "name", names[1]])
        namespace.run(f"ip address add {inside} dev {names[0]}")
        namespace.run(f"ip link set {names[0]} up")
        # The machine's end goes with the namespace's.
        _run(["ip", "address", "add", outside, "dev", names[1]])
        _run(["ip", "link", "set", names[1], "up"])


@contextmanager
def network() -> Iterator[Network]:
    """A network for the length of the block; whatever still runs in it is its opener's to end."""
    built = Network(f"portrait-{os.getpid()}-{next(_numbers)}")
    try:
        yield built
    finally:
        for namespace in built.made:
            _run(["ip", "netns", "delete", namespace.name])


_numbers = itertools.count()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
