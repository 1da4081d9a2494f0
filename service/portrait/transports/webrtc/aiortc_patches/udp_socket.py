"""UDP sockets for media, which read all waiting datagrams at once and send those of a picture by one system call.

asyncio reads one datagram and then polls all of its sockets and timers again, which costs as much as the datagram
itself. A picture is three or more datagrams that arrive together.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Sequence
from struct import pack
from typing import Any

from aioice.ice import StunProtocol

from portrait.transports.webrtc.aiortc_patches.stun_heads import LAST_STUN

logger = logging.getLogger(__name__)

LARGEST = 4096
"""Bytes of a datagram; a larger one is truncated and cannot be decrypted. Media, DTLS and STUN keep to what passes
networks unfragmented, 1500 bytes as a rule."""

AT_ONCE = 64
"""Datagrams read from one socket before others are served."""

WAITING = 2**20
"""Bytes that may wait for space in the kernel's buffer; more are lost, as they would be in the network."""

UDP_SEGMENT = 103
"""Linux' option for one call that sends many datagrams of equal size (udp(7)); Python does not name it."""

MOST_SEGMENTS = 32
"""Datagrams of one call. Linux takes 64, and at most 64 KB."""


class MediaTransport(asyncio.DatagramTransport):
    """A transport that may send several datagrams better than one after the other."""

    def send_together(self, datagrams: Sequence[bytes], addr: Any) -> None:
        """Send datagrams to one address."""
        for data in datagrams:
            self.sendto(data, addr)

    async def wait_for_room(self, addr: Any) -> None:
        """Wait until nothing waits to be sent to an address, where the network says so. UDP does not."""


class MediaSocket(MediaTransport):
    """A bound socket and its protocol. The code that opens it closes it."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, opened: socket.socket, protocol: asyncio.DatagramProtocol
    ) -> None:
        super().__init__({"socket": opened, "sockname": opened.getsockname()})
        self._loop, self._socket, self._protocol = loop, opened, protocol
        self._waiting: deque[tuple[bytes, Any]] = deque()
        self._size, self._closing = 0, False
        self._segments = _has_segments(opened)
        protocol.connection_made(self)
        loop.add_reader(opened, self._read)

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._closing

    def close(self) -> None:
        """Close it as soon as nothing waits to be sent. Idempotent."""
        if not self._closing:
            self._closing = True
            self._loop.remove_reader(self._socket)
            if not self._waiting:
                self._loop.call_soon(self._end)

    def abort(self) -> None:
        """Close it now, and drop what waits to be sent."""
        if self._closing and self._waiting:  # `close` has left the end to `_write`
            self._loop.call_soon(self._end)
        self._waiting.clear()
        self._loop.remove_writer(self._socket)
        self.close()

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send a datagram, or queue it behind others."""
        if self._waiting:
            self._wait(data, addr)
            return
        try:
            self._socket.sendto(data, addr)
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._socket, self._write)
            self._wait(data, addr)
        except OSError as error:
            self._protocol.error_received(error)

    def send_together(self, datagrams: Sequence[bytes], addr: Any) -> None:
        """Send datagrams to one address, or queue them behind others. Equal sizes, but of the last, need one call."""
        for begin in range(0, len(datagrams), MOST_SEGMENTS):
            part = datagrams[begin : begin + MOST_SEGMENTS]
            if not self._send_segments(part, addr):
                super().send_together(part, addr)

    def _send_segments(self, datagrams: Sequence[bytes], addr: Any) -> bool:
        """Send datagrams by one call; False: it cannot be, and nothing was sent.

        Linux refuses it for a way that is too narrow for a datagram, or whose device adds no checksums: the next
        address may well have another.
        """
        size = len(datagrams[0])
        if len(datagrams) == 1 or not self._segments or self._waiting:
            return False
        if len(datagrams[-1]) > size or any(len(data) != size for data in datagrams[1:-1]):
            return False
        try:
            self._socket.sendmsg(datagrams, [(socket.IPPROTO_UDP, UDP_SEGMENT, pack("=H", size))], 0, addr)
        except OSError:
            return False
        return True

    def _wait(self, data: bytes, addr: Any) -> None:
        if self._size + len(data) <= WAITING:
            self._waiting.append((data, addr))
            self._size += len(data)

    def _write(self) -> None:
        while self._waiting:
            data, addr = self._waiting[0]
            try:
                self._socket.sendto(data, addr)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._protocol.error_received(error)
            self._waiting.popleft()
            self._size -= len(data)
        self._loop.remove_writer(self._socket)
        if self._closing:
            self._end()

    def _read(self) -> None:
        for _ in range(AT_ONCE):
            try:
                data, addr = self._socket.recvfrom(LARGEST)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._protocol.error_received(error)
                return
            self._protocol.datagram_received(data, addr)
            if self._closing:
                return

    def _end(self) -> None:
        try:
            self._protocol.connection_lost(None)
        finally:
            self._socket.close()


def open_socket(host: str, port: int) -> socket.socket:
    """A UDP socket bound to a numeric address.

    Raises:
        OSError: the port is taken, or the address is not this machine's.
    """
    family, kind, number, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
    )[0]
    opened = socket.socket(family, kind, number)
    try:
        opened.setblocking(False)
        opened.bind(address)
    except OSError:
        opened.close()
        raise
    return opened


def datagram_received(self: StunProtocol, data: Any, addr: tuple[Any, ...]) -> None:
    """Hand STUN to aioice, and DTLS and SRTP to their reader. Replaces StunProtocol.datagram_received."""
    if data and data[0] > LAST_STUN:
        self.receiver.data_received(data, self.local_candidate.component)
        return
    try:
        _stock_datagram_received(self, data, addr)
    except Exception as error:
        # Anybody may send it: not worth a traceback for each. aioice lets through what it does not expect, such as an
        # attribute of another length than its type's.
        logger.debug("STUN message from %s ignored: %r", addr[0], error)


_stock_datagram_received = StunProtocol.datagram_received


def _has_segments(opened: socket.socket) -> bool:
    """Whether the kernel can send many datagrams by one call."""
    try:
        opened.getsockopt(socket.IPPROTO_UDP, UDP_SEGMENT)
    except OSError:
        return False
    return True
