"""The connecting side of ICE over TCP (RFC 6544), which aioice lacks: a client's TCP connection as its transport."""

import asyncio
import re
from contextlib import suppress
from typing import Any

from aioice import Candidate, Connection
from aioice.ice import StunProtocol
from aiortc import RTCPeerConnection


def framed(packet: bytes) -> bytes:
    """A packet behind its length (RFC 4571)."""
    return len(packet).to_bytes(2, "big") + packet


class ActiveTcp(asyncio.Protocol, asyncio.DatagramTransport):
    """A TCP connection to the service that gives its packets to `protocol`."""

    def __init__(self, protocol: StunProtocol) -> None:
        asyncio.DatagramTransport.__init__(self)
        self._protocol, self._came = protocol, b""
        self.stream: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.stream = transport
        self._protocol.connection_made(self)

    def data_received(self, data: bytes) -> None:
        self._came += data
        while len(self._came) >= 2 and len(self._came) >= (end := 2 + int.from_bytes(self._came[:2], "big")):
            packet, self._came = self._came[2:end], self._came[end:]
            self._protocol.datagram_received(packet, self.stream.get_extra_info("peername"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def sendto(self, data: Any, addr: Any = None) -> None:
        self.stream.write(framed(data))

    def close(self) -> None:
        self.stream.close()

    def abort(self) -> None:
        self.stream.abort()

    def is_closing(self) -> bool:
        return bool(self.stream.is_closing())

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.stream.get_extra_info(name, default)


async def connect_over_tcp(client: Connection, host: str, port: int) -> ActiveTcp:
    """A further local candidate of a client that has gathered its own: a connection to a passive one of the service."""
    protocol = StunProtocol(client)
    _, active = await asyncio.get_running_loop().create_connection(lambda: ActiveTcp(protocol), host, port)
    own = active.get_extra_info("sockname")
    protocol.local_candidate = Candidate("1", 1, "tcp", 1, own[0], own[1], "host", tcptype="active")
    client._protocols.append(protocol)
    return active


async def over_tcp(connection: RTCPeerConnection, answer: str) -> str:
    """Connect to the TCP candidates of an answer that can be reached; the answer with TCP candidates only."""
    offered = re.findall(r"^a=candidate:\S+ 1 tcp \d+ (\S+) (\d+) typ host tcptype passive", answer, re.MULTILINE)
    for transport in connection._RTCPeerConnection__iceTransports:  # type: ignore[attr-defined]
        for host, port in offered:
            with suppress(OSError):
                await connect_over_tcp(transport.iceGatherer._connection, host, int(port))
    return re.sub(r"^a=candidate:\S+ 1 udp .*\r\n", "", answer, flags=re.MULTILINE)
