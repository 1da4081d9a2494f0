"""One UDP port for the media of all connections.

Firewalls, containers and load balancers then need one port instead of two hundred. A datagram finds its connection by
what aioice has made known of it: a STUN request by the username that it names (RFC 8445 section 7.2.2), a STUN response
by the number of the request that it answers (RFC 8489 section 5), media and DTLS by the address that they come from.

An address belongs to the connection whose peer has proved to be there, by an answer to a request that was sent to it.
Until then it belongs to the connection that has answered an authenticated request from there, unless it is another's
already: the sender of a request can be forged, so a client cannot take the address of another one.
"""

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aioice.ice import StunProtocol, get_host_addresses

from portrait.transports.webrtc.aiortc_patches.stun_heads import (
    ERROR,
    HEAD,
    LAST_STUN,
    REQUEST,
    RESPONSE,
    receiver_of,
)
from portrait.transports.webrtc.aiortc_patches.tcp_port import TcpPort
from portrait.transports.webrtc.aiortc_patches.udp_socket import MediaSocket, MediaTransport, open_socket

Address: TypeAlias = tuple[str, int]

ADDRESSES = 16
"""Addresses that a connection has at once, at most: the one that was heard of first is given up."""

BUFFER = 4 * 2**20
"""Bytes of the kernel's buffers in each direction, for all connections; Linux gives what net.core.rmem_max allows."""

ASKED = 64
"""Requests of a connection whose answers are awaited, at most. aioice has a few under way at once."""


@dataclass(slots=True, eq=False)
class _Route:
    """What leads to a connection."""

    protocol: StunProtocol
    username: bytes
    addresses: OrderedDict[Address, None] = field(default_factory=OrderedDict)
    asked: OrderedDict[bytes, Address] = field(default_factory=OrderedDict)


class SharedPort:
    """The same port number on every address of the machine, of TCP too with `tcp`. The code that opens it closes it.

    Port 0 is any free one, another on each address.
    """

    def __init__(self, port: int, tcp: TcpPort | None = None) -> None:
        self._port, self.tcp = port, tcp
        self._sockets: dict[str, _SharedSocket] = {}

    def start(self) -> None:
        """Open the port on the addresses that the machine has now; those that it gets later, when they are used.

        Raises:
            OSError: another program has it.
        """
        for host in get_host_addresses(use_ipv4=True, use_ipv6=True):
            self._socket(host)
            if self.tcp is not None:
                self.tcp.listen(host)

    def open(self, host: str, make: Callable[[], Any]) -> tuple[asyncio.DatagramTransport, Any]:
        """A transport of `host` on this port, and the protocol that `make` gives, which gets its share of datagrams.

        Raises:
            OSError: another program has the port.
        """
        shared = self._socket(host)
        protocol = make()
        return shared.add(protocol), protocol

    def close(self) -> None:
        """Close the sockets."""
        for shared in self._sockets.values():
            shared.transport.close()
        self._sockets.clear()
        if self.tcp is not None:
            self.tcp.close()

    def _socket(self, host: str) -> "_SharedSocket":
        if host not in self._sockets:
            try:
                opened = open_socket(host, self._port)
            except OSError as error:
                raise OSError(error.errno, f"UDP port {self._port} of {host}: {error.strerror}") from error
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                opened.setsockopt(socket.SOL_SOCKET, option, BUFFER)
            self._sockets[host] = shared = _SharedSocket()
            shared.transport = MediaSocket(asyncio.get_running_loop(), opened, shared)
        return self._sockets[host]


class _SharedSocket(asyncio.DatagramProtocol):
    """A bound socket, and which connection each of its datagrams is for."""

    transport: MediaSocket

    def __init__(self) -> None:
        self._by_username: dict[bytes, _Route] = {}
        self._by_address: dict[Address, _Route] = {}
        self._by_number: dict[bytes, _Route] = {}

    def add(self, protocol: StunProtocol) -> "_Share":
        """A transport for one more connection."""
        route = _Route(protocol, protocol.receiver.local_username.encode())
        self._by_username[route.username] = route
        share = _Share(self, route)
        protocol.connection_made(share)
        return share

    def remove(self, route: _Route) -> None:
        """Forget a connection."""
        del self._by_username[route.username]
        for address in route.addresses:
            del self._by_address[address]
        for number in route.asked:
            del self._by_number[number]

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Hand a datagram to its connection; what belongs to none is dropped without an answer."""
        address = (addr[0], addr[1])
        if not data:
            return
        if data[0] > LAST_STUN:
            route = self._by_address.get(address)
        elif data[:2] == REQUEST:
            route = self._by_username.get(receiver_of(data))
        else:
            route = self._answered(data, address)
        if route is not None:
            route.protocol.datagram_received(data, address)

    def error_received(self, exc: Exception) -> None:
        """An ICMP message about a datagram that was sent; the kernel does not say which."""

    def send(self, route: _Route, data: bytes, address: Address) -> None:
        """Send a connection's datagram, and note what may come of it."""
        kind = data[:2]
        if kind == REQUEST:
            number = data[8:HEAD]
            if number not in route.asked:  # sent again until it is answered
                route.asked[number] = address
                self._by_number[number] = route
                if len(route.asked) > ASKED:
                    del self._by_number[route.asked.popitem(last=False)[0]]
        elif kind == RESPONSE and address not in self._by_address:
            self._give(route, address)
        self.transport.sendto(data, address)

    def _answered(self, data: bytes, address: Address) -> _Route | None:
        number = data[8:HEAD]
        route = self._by_number.get(number)
        if route is None or data[:2] not in (RESPONSE, ERROR):
            return None
        if data[:2] == RESPONSE and route.asked[number] == address:
            self._give(route, address)
        return route

    def _give(self, route: _Route, address: Address) -> None:
        owner = self._by_address.get(address)
        if owner is route:
            return
        if owner is not None:
            del owner.addresses[address]
        self._by_address[address] = route
        route.addresses[address] = None
        if len(route.addresses) > ADDRESSES:
            del self._by_address[route.addresses.popitem(last=False)[0]]


class _Share(MediaTransport):
    """A connection's transport on a shared socket."""

    def __init__(self, shared: _SharedSocket, route: _Route) -> None:
        # Without "socket": aioice would set the buffers of all connections.
        super().__init__({"sockname": shared.transport.get_extra_info("sockname")})
        self._shared, self._route, self._closing = shared, route, False

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send a datagram. After `close` it is dropped."""
        if not self._closing:
            self._shared.send(self._route, data, (addr[0], addr[1]))

    def send_together(self, datagrams: Sequence[bytes], addr: Any) -> None:
        """Send a connection's media to one address. After `close` it is dropped."""
        if not self._closing:
            self._shared.transport.send_together(datagrams, addr)

    def is_closing(self) -> bool:
        """Whether it is closed."""
        return self._closing

    def close(self) -> None:
        """Take no more datagrams. Idempotent."""
        if not self._closing:
            self._closing = True
            self._shared.remove(self._route)
            asyncio.get_running_loop().call_soon(self._route.protocol.connection_lost, None)

    def abort(self) -> None:
        """The same: nothing waits to be sent here."""
        self.close()
