"""Where media arrives: the UDP ports that a box opens, and the addresses by which it is reached from outside."""

import asyncio
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from portrait.transports.webrtc.aiortc_patches.udp_socket import MediaSocket, open_socket

HOST_CANDIDATE = re.compile(r"^a=candidate:(\S+) (\d+) udp (\d+) (\S+) (\d+) typ host\r\n", re.MULTILINE)

REPLACED = "create_datagram_endpoint"

PORTS: ContextVar[range | None] = ContextVar("media ports", default=None)
"""The port range of the service that the running task belongs to: two services on one loop keep to their own."""


@contextmanager
def media_ports(loop: asyncio.AbstractEventLoop, ports: range) -> Iterator[None]:
    """For the length of the block, UDP sockets that would take any port are `MediaSocket`s on a free one of `ports`.

    An empty range means any port. This applies to tasks of `loop` in whose context PORTS is this very range.

    aioice binds to port 0 and has no setting for it; it asks the running loop, and nothing else in the service binds
    UDP sockets. When every port is taken, binding raises the OSError of a port in use.
    """
    stock, inherited = loop.create_datagram_endpoint, vars(loop).get(REPLACED)
    in_force = True

    async def bind(protocol_factory: Any, local_addr: Any = None, **options: Any) -> Any:
        if not in_force or PORTS.get() is not ports or local_addr is None or local_addr[1] != 0:
            return await stock(protocol_factory, local_addr=local_addr, **options)
        error = OSError("no media ports")
        # At random: a port that was just closed may still receive its last peer's packets.
        for port in random.sample(ports, len(ports)) if ports else [0]:
            try:
                opened = open_socket(local_addr[0], port)
            except OSError as tried:
                error = tried
            else:
                protocol = protocol_factory()
                return MediaSocket(loop, opened, protocol), protocol
        raise error

    loop.create_datagram_endpoint = bind  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        in_force = False
        # Where a second service has replaced it again, ours stays underneath and passes everything on.
        if vars(loop).get(REPLACED) is bind:
            del loop.create_datagram_endpoint
            if inherited is not None:
                vars(loop)[REPLACED] = inherited


def advertise(answer: str, addresses: Sequence[str]) -> str:
    """The answer with a further host candidate for each of `addresses` and each port, for a box behind a bridge.

    A container on a bridge network sees the bridge's address; its UDP ports are published one to one on the host, whose
    address clients need. Each has the priority of the candidate it stands for less one, so that a client beside the box
    uses the direct route (RFC 8445 section 5.1.2).
    """
    if not addresses:
        return answer

    def further(found: re.Match[str]) -> str:
        foundation, component, priority, _, port = found.groups()
        lines = [found[0]]
        for number, address in enumerate(addresses):
            name = f"{foundation[:28]}a{number}"
            lines.append(f"a=candidate:{name} {component} udp {int(priority) - 1} {address} {port} typ host\r\n")
        return "".join(lines)

    return HOST_CANDIDATE.sub(further, answer)
