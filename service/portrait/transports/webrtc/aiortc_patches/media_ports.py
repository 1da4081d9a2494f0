"""Where media arrives: the UDP ports that a box opens, and the addresses by which it is reached from outside."""

import asyncio
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from portrait.transports.webrtc.aiortc_patches.shared_port import SharedPort
from portrait.transports.webrtc.aiortc_patches.udp_socket import MediaSocket, open_socket

HOST_CANDIDATE = re.compile(
    r"^a=candidate:(\S+) (\d+) (udp|tcp) (\d+) (\S+) (\d+) typ host( tcptype passive)?\r\n", re.MULTILINE
)

REPLACED = "create_datagram_endpoint"


class OwnPorts:
    """A free port of `ports` for every connection and address of the machine. An empty range means any port."""

    def __init__(self, ports: range) -> None:
        self._ports = ports

    def open(self, host: str, make: Callable[[], Any]) -> tuple[asyncio.DatagramTransport, Any]:
        """A socket of `host`, and the protocol that `make` gives, which gets its datagrams.

        Raises:
            OSError: every port is taken.
        """
        error = OSError("no media ports")
        # At random: a port that was just closed may still receive its last peer's packets.
        for port in random.sample(self._ports, len(self._ports)) if self._ports else [0]:
            try:
                opened = open_socket(host, port)
            except OSError as tried:
                error = tried
            else:
                protocol = make()
                return MediaSocket(asyncio.get_running_loop(), opened, protocol), protocol
        raise error

    def close(self) -> None:
        """Nothing: each socket ends with its connection."""


PORTS: ContextVar[OwnPorts | SharedPort | None] = ContextVar("media ports", default=None)
"""Those of the service that the running task belongs to: two services on one loop keep to their own."""


@contextmanager
def media_ports(loop: asyncio.AbstractEventLoop, ports: OwnPorts | SharedPort) -> Iterator[None]:
    """For the length of the block, UDP sockets that would take any port are opened by `ports`.

    This applies to tasks of `loop` in whose context PORTS is this very object.

    aioice binds to port 0 and has no setting for it; it asks the running loop, and nothing else in the service binds
    UDP sockets.
    """
    stock, inherited = loop.create_datagram_endpoint, vars(loop).get(REPLACED)
    in_force = True

    async def bind(protocol_factory: Any, local_addr: Any = None, **options: Any) -> Any:
        if not in_force or PORTS.get() is not ports or local_addr is None or local_addr[1] != 0:
            return await stock(protocol_factory, local_addr=local_addr, **options)
        return ports.open(local_addr[0], protocol_factory)

    loop.create_datagram_endpoint = bind  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        in_force = False
        ports.close()
        # Where a second service has replaced it again, ours stays underneath and passes everything on.
        if vars(loop).get(REPLACED) is bind:
            del loop.create_datagram_endpoint
            if inherited is not None:
                vars(loop)[REPLACED] = inherited


def advertise(answer: str, addresses: Sequence[str]) -> str:
    """The answer with a further host candidate for each of `addresses` and each port, for a box behind a bridge.

    A container on a bridge network sees the bridge's address; its ports are published one to one on the host, whose
    address clients need. Each has the priority of the candidate it stands for less one, so that a client beside the box
    uses the direct route (RFC 8445 section 5.1.2).
    """
    if not addresses:
        return answer

    def further(found: re.Match[str]) -> str:
        foundation, component, protocol, priority, _, port, kind = found.groups(default="")
        lines = [found[0]]
        for number, address in enumerate(addresses):
            name = f"{foundation[:28]}a{number}"
            place = f"{protocol} {int(priority) - 1} {address} {port}"
            lines.append(f"a=candidate:{name} {component} {place} typ host{kind}\r\n")
        return "".join(lines)

    return HOST_CANDIDATE.sub(further, answer)
