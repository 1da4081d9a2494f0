"""The UDP sockets of media."""

import asyncio
import errno
import socket
import sys
from asyncio import timeout
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from portrait.transports.webrtc.aiortc_patches.udp_socket import LARGEST, WAITING, MediaSocket, open_socket

pytestmark = pytest.mark.usefixtures("no_sockets_left")


class Heard(asyncio.DatagramProtocol):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.came: list[tuple[bytes, Any]] = []
        self.turns = 0
        self.errors: list[Exception] = []
        self.lost = asyncio.Event()
        self.ends = 0

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if not self.came:
            asyncio.get_running_loop().call_soon(self.turn)
        self.came.append((data, addr))

    def turn(self) -> None:
        """The loop goes round: how many datagrams had come by then."""
        self.turns = len(self.came)

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ends += 1
        self.lost.set()


class Full(socket.socket):
    """A socket without room, as long as it is told so."""

    full = True

    def sendto(self, *arguments: Any) -> int:
        if self.full:
            raise BlockingIOError
        return super().sendto(*arguments)


@asynccontextmanager
async def bound(host: str = "127.0.0.1") -> AsyncIterator[tuple[MediaSocket, Heard]]:
    heard = Heard()
    transport = MediaSocket(asyncio.get_running_loop(), open_socket(host, 0), heard)
    try:
        yield transport, heard
    finally:
        transport.abort()
        await heard.lost.wait()


def address_of(transport: asyncio.DatagramTransport) -> tuple[str, int]:
    host, port, *_ = transport.get_extra_info("sockname")
    return host, port


async def until_came(heard: Heard, count: int) -> None:
    async with timeout(60):
        while len(heard.came) < count:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_all_that_has_come_is_read_in_one_turn_of_the_loop_and_in_order(host: str) -> None:
    async with bound(host) as (one, _), bound(host) as (other, heard):
        sent = [bytes([number]) * 1200 for number in range(20)]
        for data in sent:
            one.sendto(data, address_of(other))
        await until_came(heard, 20)
        assert [data for data, _ in heard.came] == sent
        assert {address[:2] for _, address in heard.came} == {address_of(one)}
        assert heard.turns == 20


class Counted(socket.socket):
    """Counts calls that send; `refused` is what the kernel says of those that send several datagrams to `narrow`."""

    calls = 0
    refused: OSError | None = None
    narrow: object = None

    def sendto(self, *arguments: Any) -> int:
        self.calls += 1
        return super().sendto(*arguments)

    def sendmsg(self, *arguments: Any) -> int:
        self.calls += 1
        if self.refused is not None and self.narrow in (None, arguments[-1]):
            raise self.refused
        return super().sendmsg(*arguments)


@asynccontextmanager
async def counted(kind: type[Counted] = Counted) -> AsyncIterator[tuple[MediaSocket, Counted]]:
    opened, told = kind(socket.AF_INET, socket.SOCK_DGRAM), Heard()
    opened.setblocking(False)
    opened.bind(("127.0.0.1", 0))
    transport = MediaSocket(asyncio.get_running_loop(), opened, told)
    try:
        yield transport, opened
    finally:
        transport.abort()
        await told.lost.wait()
        assert told.errors == []


PICTURE = [bytes([number]) * 1200 for number in range(40)] + [b"last"]


@pytest.mark.skipif(sys.platform != "linux", reason="UDP_SEGMENT is Linux'")
async def test_a_pictures_datagrams_are_sent_by_few_calls_and_arrive_one_by_one() -> None:
    async with counted() as (one, opened), bound() as (other, heard):
        one.send_together(PICTURE, address_of(other))
        await until_came(heard, len(PICTURE))
        assert [data for data, _ in heard.came] == PICTURE
        assert opened.calls == 2


async def test_datagrams_of_different_sizes_are_sent_one_by_one() -> None:
    async with counted() as (one, opened), bound() as (other, heard):
        sent = [b"short", b"longer", b"x", b"longer"]
        one.send_together(sent, address_of(other))
        await until_came(heard, 4)
        assert [data for data, _ in heard.came] == sent
        assert opened.calls == 4


class Old(Counted):
    """What a kernel without UDP_SEGMENT says of it."""

    def getsockopt(self, *arguments: Any) -> Any:
        raise OSError(errno.ENOPROTOOPT, "Protocol not available")


async def test_a_kernel_without_segments_is_not_asked_again() -> None:
    async with counted(Old) as (one, opened), bound() as (other, heard):
        one.send_together(PICTURE[:3], address_of(other))
        await until_came(heard, 3)
        assert [data for data, _ in heard.came] == PICTURE[:3]
        assert opened.calls == 3


@pytest.mark.skipif(sys.platform != "linux", reason="UDP_SEGMENT is Linux'")
@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL, errno.EMSGSIZE])
async def test_an_address_that_takes_no_segments_does_not_cost_the_others_theirs(number: int) -> None:
    async with counted() as (one, opened), bound() as (narrow, few), bound() as (wide, heard):
        opened.refused, opened.narrow = OSError(number, "not on this way"), address_of(narrow)
        for _ in range(2):
            one.send_together(PICTURE[:3], address_of(narrow))
            one.send_together(PICTURE[:3], address_of(wide))
        await until_came(few, 6)
        await until_came(heard, 6)
        assert [data for data, _ in few.came] == [data for data, _ in heard.came] == 2 * PICTURE[:3]
        assert opened.calls == 2 * (1 + 3) + 2 * 1


async def test_a_picture_that_finds_no_room_waits_in_order() -> None:
    async with counted() as (one, opened), bound() as (other, heard):
        opened.refused = BlockingIOError(errno.EAGAIN, "full")
        one.send_together(PICTURE[:3], address_of(other))
        opened.refused = None
        one.send_together(PICTURE[3:6], address_of(other))
        await until_came(heard, 6)
        assert [data for data, _ in heard.came] == PICTURE[:6]
        assert opened.calls == 1 + 3 + 1  # the next picture goes by one call again


async def test_what_is_larger_than_any_packet_is_cut_off() -> None:
    async with bound() as (one, _), bound() as (other, heard):
        one.sendto(bytes(LARGEST + 100), address_of(other))
        one.sendto(b"next", address_of(other))
        await until_came(heard, 2)
        assert [len(data) for data, _ in heard.came] == [LARGEST, 4]


async def test_what_finds_no_room_waits_in_order_up_to_a_bound_and_goes_before_the_end() -> None:
    loop, full = asyncio.get_running_loop(), Full(socket.AF_INET, socket.SOCK_DGRAM)
    full.setblocking(False)
    full.bind(("127.0.0.1", 0))
    protocol = Heard()
    transport = MediaSocket(loop, full, protocol)
    async with bound() as (other, heard):
        sent = [bytes([number]) for number in range(10)]
        for data in sent:
            transport.sendto(data, address_of(other))
        transport.sendto(bytes(WAITING), address_of(other))  # more than may wait
        await asyncio.sleep(0.05)
        assert heard.came == []
        transport.close()
        assert transport.is_closing()
        assert not protocol.lost.is_set()
        full.full = False
        await until_came(heard, 10)
        assert [data for data, _ in heard.came] == sent
        await asyncio.wait_for(protocol.lost.wait(), 60)
        assert full.fileno() == -1
        assert protocol.errors == []


@pytest.mark.parametrize("closed", [True, False])
async def test_aborting_ends_it_once_although_something_waits(closed: bool) -> None:
    loop, full = asyncio.get_running_loop(), Full(socket.AF_INET, socket.SOCK_DGRAM)
    full.setblocking(False)
    full.bind(("127.0.0.1", 0))
    protocol = Heard()
    transport = MediaSocket(loop, full, protocol)
    transport.sendto(b"waits", ("127.0.0.1", 9))
    if closed:
        transport.close()
    transport.abort()
    transport.abort()
    await asyncio.wait_for(protocol.lost.wait(), 60)
    await asyncio.sleep(0)
    assert full.fileno() == -1
    assert protocol.ends == 1


async def test_an_error_is_told_and_the_socket_goes_on() -> None:
    async with bound() as (one, told), bound() as (other, heard):
        one.sendto(bytes(70_000), address_of(other))  # no datagram is so long
        assert [type(error) for error in told.errors] == [OSError]
        one.sendto(b"next", address_of(other))
        await until_came(heard, 1)


async def test_a_port_that_is_taken_is_refused() -> None:
    async with bound() as (one, _):
        with pytest.raises(OSError, match="in use"):
            open_socket(*address_of(one))
