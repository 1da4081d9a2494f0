"""Ports nobody has."""

import os
import random
import socket

FIRST = 20_000 + 1_000 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10)
"""Of a thousand that are this process's: below those that the kernel gives away, and nobody else's of the same run."""


def free_ports(count: int, kind: socket.SocketKind = socket.SOCK_DGRAM) -> range:
    """That many ports in a row which nobody has now; of UDP, or with SOCK_STREAM of TCP."""
    while True:
        first = random.randrange(FIRST, FIRST + 1_000 - count)
        sockets = [socket.socket(socket.AF_INET, kind) for _ in range(count)]
        try:
            for number, one in enumerate(sockets):
                one.bind(("127.0.0.1", first + number))
            return range(first, first + count)
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()


def free_port() -> int:
    """A TCP port that nobody has now."""
    return free_ports(1, socket.SOCK_STREAM)[0]
