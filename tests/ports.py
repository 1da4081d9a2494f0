"""Ports nobody has."""

import random
import socket


def free_ports(count: int) -> range:
    """That many UDP ports in a row which nobody has now."""
    while True:
        first = random.randrange(20_000, 30_000)
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
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
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
