"""ICE over TCP, for networks that let no UDP pass: clients connect to the port that has UDP as well (RFC 6544).

Every packet is preceded by its length (RFC 4571). The first one of a TCP connection must be a STUN request that names a
session and is signed with its password; all further packets of the connection are that session's. TCP connections that
have not come so far are bounded in number, of all clients and of one address, and in time.

TCP delivers everything, however late, and a picture that is late is worth nothing. So a sender waits for room before
it takes its next picture, which is the newest then: those between are dropped before they are encoded. What is sent
without room all the same waits for a bounded time, and is dropped with the whole of its picture.
"""

import asyncio
import contextlib
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from aioice.ice import StunProtocol

from portrait.transports.webrtc.aiortc_patches.stun_heads import LAST_STUN, REQUEST, RESPONSE, receiver_of
from portrait.transports.webrtc.aiortc_patches.udp_socket import LARGEST, MediaTransport

Address: TypeAlias = tuple[str, int]
Reason: TypeAlias = Literal["silent", "malformed", "unauthenticated", "too_many"]
"""Why a TCP connection was closed: it sent no packet in time, not what RFC 4571 or RFC 6544 expect, a request of no
session or with a wrong password, or it was the oldest of as many as may wait."""

FIRST_SECONDS = 5.0
"""A TCP connection whose first packet has not come by then is closed. ICE sends it as soon as it is connected."""

MOST_NEW = 128
"""TCP connections without a first packet, at most; one more replaces the oldest."""

MOST_NEW_OF_ADDRESS = 16
"""The same, from one address. A client opens one for each of its addresses."""

MOST_OF_SESSION = 16
"""TCP connections of a session on one address of the machine, at most; one more replaces the oldest."""

READ = 2**16
"""Bytes read from one TCP connection before others are served."""

ACCEPTED = 16
"""TCP connections accepted before others are served."""

LATE = 1.0
"""Seconds that a packet may wait to be sent; then it is dropped, and its picture. A large picture takes some time."""

WAITING = 2**19
"""Bytes that may wait to be sent: a picture and what goes along with it."""

UNSENT = 2**13
"""Bytes that the kernel takes over before it has sent them: some packets. They delay all that comes after them."""

URGENT = 16
"""STUN messages that wait to be sent. They overtake media: without answers the session would end."""

PAUSE = 1.0
"""Seconds after which connections are accepted again when descriptors or memory have run out."""

LENGTH = 2
"""Bytes of the length before a packet (RFC 4571 section 2)."""


class TcpPort:
    """A TCP port on addresses of the machine. The code that opens it closes it.

    Port 0 is any free one, another on each address.
    """

    def __init__(self, port: int, count: Callable[[Reason], None]) -> None:
        self._port, self._count = port, count
        self._listeners: dict[str, _Listener] = {}
        self._new: dict[_TcpConnection, asyncio.TimerHandle] = {}
        """TCP connections without a first packet, the oldest first, and what closes each."""

    def listen(self, host: str) -> None:
        """Open the port on an address, if it is not open there.

        Raises:
            OSError: another program has it.
        """
        if host not in self._listeners:
            self._listeners[host] = _Listener(self, _listening_socket(host, self._port))

    def add(self, host: str, protocol: StunProtocol) -> asyncio.DatagramTransport:
        """A transport for the session of `protocol`, of the TCP connections that its client makes to `host`.

        Raises:
            OSError: another program has the port.
        """
        self.listen(host)
        return self._listeners[host].add(protocol)

    def close(self) -> None:
        """Close the listening sockets, and what has connected and belongs to no session."""
        for connection in list(self._new):
            connection.close()
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()

    def expect(self, connection: "_TcpConnection") -> None:
        """Wait for a new connection's first packet."""
        of_address = [each for each in self._new if each.address[0] == connection.address[0]]
        if len(of_address) >= MOST_NEW_OF_ADDRESS:
            self.refuse(of_address[0], "too_many")
        elif len(self._new) >= MOST_NEW:
            self.refuse(next(iter(self._new)), "too_many")
        loop = asyncio.get_running_loop()
        self._new[connection] = loop.call_later(FIRST_SECONDS, self.refuse, connection, "silent")

    def refuse(self, connection: "_TcpConnection", reason: Reason) -> None:
        """Close a connection, and count why."""
        self._count(reason)
        connection.close()

    def forget(self, connection: "_TcpConnection") -> None:
        """Wait no longer for a connection's first packet."""
        if (timer := self._new.pop(connection, None)) is not None:
            timer.cancel()


class _Listener:
    """The port on one address, and the sessions that are reached there."""

    def __init__(self, port: TcpPort, listening: socket.socket) -> None:
        self.port, self._socket = port, listening
        self.shares: dict[bytes, _TcpShare] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(listening, self._accept)
        self._pause: asyncio.TimerHandle | None = None

    @property
    def sockname(self) -> Any:
        """The address it is bound to."""
        return self._socket.getsockname()

    def add(self, protocol: StunProtocol) -> "_TcpShare":
        """A transport for one more session."""
        share = _TcpShare(self, protocol)
        protocol.connection_made(share)
        return share

    def close(self) -> None:
        """Take no more connections."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTED):
            try:
                accepted, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # it would be readable for as long as that lasts
                self._loop.remove_reader(self._socket)
                self._pause = self._loop.call_later(PAUSE, self._loop.add_reader, self._socket, self._accept)
                return
            self.port.expect(_TcpConnection(self, accepted, (address[0], address[1])))


class _TcpShare(MediaTransport):
    """What a session sends by, and its TCP connections."""

    def __init__(self, listener: _Listener, protocol: StunProtocol) -> None:
        super().__init__({"sockname": listener.sockname})
        self._listener, self._protocol, self._closing = listener, protocol, False
        self._username = protocol.receiver.local_username.encode()
        self._connections: dict[Address, _TcpConnection] = {}
        self._asking: _TcpConnection | None = None
        listener.shares[self._username] = self

    def ask(self, connection: "_TcpConnection", request: bytes) -> None:
        """Take a connection's first packet. If that is answered, the connection is this session's from now on."""
        self._asking = connection
        try:
            self._protocol.datagram_received(request, connection.address)
        finally:
            self._asking = None

    def receive(self, packet: bytes, address: Address) -> None:
        """Take a packet of one of its connections."""
        self._protocol.datagram_received(packet, address)

    def forget(self, connection: "_TcpConnection") -> None:
        """A connection of its own has ended."""
        if self._connections.get(connection.address) is connection:
            del self._connections[connection.address]

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send a packet to a client's address; it is dropped where that has no connection, or a slow one."""
        address = (addr[0], addr[1])
        asking = self._asking
        if asking is not None and asking.share is None and address == asking.address and data[:2] == RESPONSE:
            self._adopt(asking)
        if (connection := self._connections.get(address)) is not None:
            connection.send(data)

    async def wait_for_room(self, addr: Any) -> None:
        """Wait until nothing waits to be sent to an address, for LATE at most.

        Of a client that has vanished nothing is heard: it may have come back by another connection.
        """
        connection = self._connections.get((addr[0], addr[1]))
        if connection is not None and not connection.empty.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LATE):
                    await connection.empty.wait()

    def is_closing(self) -> bool:
        """Whether it is closed."""
        return self._closing

    def close(self) -> None:
        """Close the session's connections, and take no more of them. Idempotent."""
        if not self._closing:
            self._closing = True
            del self._listener.shares[self._username]
            for connection in list(self._connections.values()):
                connection.close()
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        """The same: nothing waits to be sent that is worth waiting for."""
        self.close()

    def _adopt(self, connection: "_TcpConnection") -> None:
        replaced = self._connections.get(connection.address)
        if replaced is None and len(self._connections) >= MOST_OF_SESSION:
            replaced = next(iter(self._connections.values()))
        if replaced is not None:
            replaced.close()
        self._connections[connection.address] = connection
        connection.share = self
        self._listener.port.forget(connection)


class _TcpConnection:
    """A TCP connection that a client has made."""

    def __init__(self, listener: _Listener, accepted: socket.socket, address: Address) -> None:
        self.address = address
        self.share: _TcpShare | None = None
        self._listener, self._socket = listener, accepted
        self._loop = asyncio.get_running_loop()
        self._came, self._closed = bytearray(), False
        self.empty = asyncio.Event()
        """Set while nothing waits to be sent: the kernel takes more. And when it is closed."""
        self.empty.set()
        self._outgoing, self._unsent = Outgoing(), b""
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
        self._loop.add_reader(accepted, self._read)
        self._poll = select.poll()
        self._poll.register(accepted, select.POLLOUT)

    def send(self, packet: bytes) -> None:
        """Send a packet, or let it wait, or drop it."""
        self._outgoing.add(packet, self._loop.time())
        if self.empty.is_set():
            self._write()

    def close(self) -> None:
        """Close it, and drop what waits to be sent. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self.empty.set()
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._listener.port.forget(self)
        if self.share is not None:
            self.share.forget(self)

    def _read(self) -> None:
        try:
            came = self._socket.recv(READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            came = b""
        if came:
            self._came += came
            self._take_packets()
        elif self.share is None:
            self._listener.port.refuse(self, "silent")
        else:
            self.close()

    def _take_packets(self) -> None:
        """Take the whole packets of what has come."""
        came, at = self._came, 0
        while not self._closed and len(came) - at >= LENGTH:
            length = int.from_bytes(came[at : at + LENGTH], "big")
            if length > LARGEST:  # RFC 4571 allows 65535, but no media, DTLS or STUN comes near that
                self._listener.port.refuse(self, "malformed")
                return
            end = at + LENGTH + length
            if len(came) < end:
                break
            self._take(bytes(came[at + LENGTH : end]))
            at = end
        del came[:at]

    def _take(self, packet: bytes) -> None:
        if self.share is not None:
            if packet:
                self.share.receive(packet, self.address)
            return
        if packet[:2] != REQUEST:
            self._listener.port.refuse(self, "malformed")
            return
        if (named := self._listener.shares.get(receiver_of(packet))) is not None:
            named.ask(self, packet)
        if self.share is None:
            self._listener.port.refuse(self, "unauthenticated")

    def _write(self) -> None:
        try:
            while packet := self._unsent or self._outgoing.next(self._loop.time()):
                self._unsent = packet  # should the kernel take nothing
                # `send` alone would not heed UNSENT: it fills up the kernel's last buffer, of 64 KB, first.
                if not self._poll.poll(0):
                    raise BlockingIOError
                self._unsent = packet[self._socket.send(packet) :]
        except (BlockingIOError, InterruptedError):
            if self.empty.is_set():
                self._loop.add_writer(self._socket, self._write)
            self.empty.clear()
            return
        except OSError:
            self.close()
            return
        if not self.empty.is_set():
            self._loop.remove_writer(self._socket)
        self.empty.set()


class Outgoing:
    """The packets of a TCP connection that wait to be sent, none for longer than LATE, and no part of a picture."""

    def __init__(self) -> None:
        self._urgent: deque[bytes] = deque(maxlen=URGENT)
        self._waiting: deque[tuple[float, bytes, bytes]] = deque()
        self._size = 0
        self._picture, self._is_dropped = b"", False
        """The newest picture, and whether it has been given up."""

    def add(self, packet: bytes, now: float) -> None:
        """Let a packet wait, unless it belongs to a picture that was given up, or finds no room."""
        framed = len(packet).to_bytes(LENGTH, "big") + packet
        if packet[0] <= LAST_STUN:
            self._urgent.append(framed)
            return
        self._drop_late(now)
        picture = picture_of(packet)
        if picture and picture != self._picture:
            self._picture, self._is_dropped = picture, False
        if picture and self._is_dropped:
            return
        if self._size + len(framed) > WAITING:
            self._give_up(picture)
            return
        self._waiting.append((now, picture, framed))
        self._size += len(framed)

    def next(self, now: float) -> bytes:
        """The packet to be sent next, behind its length, which waits no longer; empty where there is none."""
        if self._urgent:
            return self._urgent.popleft()
        self._drop_late(now)
        if not self._waiting:
            return b""
        _, _, framed = self._waiting.popleft()
        self._size -= len(framed)
        return framed

    def _drop_late(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] < now - LATE:
            _, picture, framed = self._waiting.popleft()
            self._size -= len(framed)
            self._give_up(picture)

    def _give_up(self, picture: bytes) -> None:
        """Drop what waits of a picture, and what is still to come of it."""
        if picture:
            self._waiting = deque(each for each in self._waiting if each[1] != picture)
            self._size = sum(len(framed) for _, _, framed in self._waiting)
            self._is_dropped |= picture == self._picture


def picture_of(packet: bytes) -> bytes:
    """What all RTP packets of a picture have in common, their timestamp and source; empty for other packets.

    RTCP and RTP share a first byte and are told apart by the second one (RFC 5761 section 4).
    """
    is_media = 128 <= packet[0] <= 191 and not 192 <= packet[1] <= 223 if len(packet) >= 12 else False
    return packet[4:12] if is_media else b""


def _listening_socket(host: str, port: int) -> socket.socket:
    """A TCP socket that listens on a numeric address.

    Raises:
        OSError: the port is taken, or the address is not this machine's.
    """
    flags = socket.AI_NUMERICHOST
    family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)[0]
    with contextlib.ExitStack() as failed:
        opened = failed.enter_context(socket.socket(family, kind, number))
        opened.setblocking(False)
        # What an earlier process has served may linger in TIME_WAIT.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind(address)
            opened.listen(MOST_NEW)
        except OSError as error:
            raise OSError(error.errno, f"TCP port {port} of {host}: {error.strerror}") from error
        failed.pop_all()
    return opened
