"""One UDP port for all connections: every datagram finds its own, and nobody finds another's."""

import asyncio
import os
import random
import socket
import sys
from asyncio import timeout
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import copy_context

import pytest
from aioice import Connection, stun
from aioice.ice import get_host_addresses

from portrait.server.app import RunningService
from portrait.transports.webrtc import aiortc_patches
from portrait.transports.webrtc.aiortc_patches.ice import LiveIce
from portrait.transports.webrtc.aiortc_patches.media_ports import PORTS, media_ports
from portrait.transports.webrtc.aiortc_patches.shared_port import ADDRESSES, ASKED, SharedPort
from portrait.transports.webrtc.aiortc_patches.stun_heads import receiver_of
from tests.benchmarks.forged import KINDS, forged
from tests.people import Clip
from tests.ports import free_ports
from tests.rtc import Camera, viewer
from tests.whip import shown

__all__ = ["shown"]  # a fixture

pytestmark = pytest.mark.usefixtures("no_sockets_left")

HOST = get_host_addresses(use_ipv4=True, use_ipv6=False)[0]


@contextmanager
def shared(port: int) -> Iterator[SharedPort]:
    aiortc_patches.install()
    ports = SharedPort(port)
    with media_ports(asyncio.get_running_loop(), ports):
        yield ports


async def local(ports: SharedPort) -> LiveIce:
    """A connection of the service."""
    context, connection = copy_context(), LiveIce(ice_controlling=False, use_ipv6=False)
    context.run(PORTS.set, ports)
    await context.run(asyncio.create_task, connection.gather_candidates())
    return connection


async def remote(to: Connection) -> Connection:
    """A client of a connection, on a port of its own."""
    client = Connection(ice_controlling=True, use_ipv6=False)
    await client.gather_candidates()
    for one, other in ((client, to), (to, client)):
        for candidate in other.local_candidates:
            await one.add_remote_candidate(candidate)
        await one.add_remote_candidate(None)
        one.remote_username, one.remote_password = other.local_username, other.local_password
    await asyncio.gather(client.connect(), to.connect())
    return client


@asynccontextmanager
async def pairs(ports: SharedPort, count: int) -> AsyncIterator[list[tuple[LiveIce, Connection]]]:
    """Connections of the service and their clients, all connected."""
    here = [await local(ports) for _ in range(count)]
    there = await asyncio.gather(*map(remote, here))
    try:
        yield list(zip(here, there, strict=True))
    finally:
        await asyncio.gather(*(connection.close() for connection in (*here, *there)))


def media(text: str) -> bytes:
    return b"\x80" + text.encode()


def binding(connection: Connection, password: str | None = None) -> bytes:
    """A request that a client of `connection` sends."""
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, transaction_id=os.urandom(12))
    request.attributes |= {
        "USERNAME": f"{connection.local_username}:{connection.remote_username}",
        "PRIORITY": 1,
        "ICE-CONTROLLING": 1,
    }
    request.add_message_integrity((password or connection.local_password).encode())
    return bytes(request)


def table(ports: SharedPort) -> tuple[int, int, int]:
    sockets = ports._sockets.values()
    return (
        sum(len(each._by_username) for each in sockets),
        sum(len(each._by_address) for each in sockets),
        sum(len(each._by_number) for each in sockets),
    )


async def test_sixty_four_connections_share_a_port_and_each_gets_what_is_its_own() -> None:
    [port] = free_ports(1)
    with shared(port) as ports:
        async with pairs(ports, 64) as connected:
            assert {c.port for here, _ in connected for c in here.local_candidates} == {port}
            for number, (_, there) in enumerate(connected):
                for word in range(5):
                    await there.send(media(f"up {number} {word}"))
            for number, (here, there) in enumerate(connected):
                async with timeout(60):
                    assert [await here.recv() for _ in range(5)] == [media(f"up {number} {w}") for w in range(5)]
                    await here.send(media(f"down {number}"))
                    assert await there.recv() == media(f"down {number}")
                assert here._queue.empty()
        assert table(ports) == (0, 0, 0)


async def test_what_strangers_send_reaches_nobody_and_leaves_nothing() -> None:
    dice = random.Random(3)
    [port] = free_ports(1)
    with shared(port) as ports, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.setblocking(False)
        stranger.bind((HOST, 0))
        async with pairs(ports, 2) as connected:
            here, there = connected[0]
            before = table(ports)
            unknown = LiveIce(ice_controlling=False)
            forged = [
                media("a picture"),
                b"\x16\xfe\xff" + bytes(60),  # DTLS
                b"",
                b"\x00",
                b"\x00\x01",
                b"\x00\x01\xff\xff" + bytes(16),
                binding(unknown),
                b"\x01\x01" + bytes(18),
                *(bytes([dice.randrange(4)]) + dice.randbytes(dice.randrange(200)) for _ in range(500)),
            ]
            for data in forged:
                stranger.sendto(data, (HOST, port))
                await asyncio.sleep(0)
            await there.send(media("mine"))
            async with timeout(60):
                assert await here.recv() == media("mine")
            assert here._queue.empty()
            assert table(ports) == before
            with pytest.raises(BlockingIOError):
                stranger.recv(2048)


async def test_a_wrong_password_opens_no_way() -> None:
    [port] = free_ports(1)
    with shared(port) as ports, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind((HOST, 0))
        async with pairs(ports, 1) as [(here, there)]:
            before = table(ports)
            stranger.sendto(binding(here, "wrong"), (HOST, port))
            stranger.sendto(media("not mine"), (HOST, port))
            await there.send(media("mine"))
            async with timeout(60):
                assert await here.recv() == media("mine")
            assert table(ports) == before


async def test_a_client_cannot_take_the_address_of_another() -> None:
    """Not even with an authenticated request whose sender is forged."""
    [port] = free_ports(1)
    with shared(port) as ports:
        async with pairs(ports, 2) as [(victim, its_client), (other, _)]:
            address = (its_client.local_candidates[0].host, its_client.local_candidates[0].port)
            ports._sockets[HOST].datagram_received(binding(other), address)
            await its_client.send(media("still mine"))
            async with timeout(60):
                assert await victim.recv() == media("still mine")
            assert other._queue.empty()


async def test_no_packet_of_a_session_reaches_another_however_it_is_forged() -> None:
    """Clients with valid names and passwords of their own, who also send in each other's names and addresses.

    Media with another client's address is handed to that client's session, since nothing but its encryption tells it
    apart; whatever a client sends from its own address reaches its own session or none.
    """
    dice = random.Random(9)
    [port] = free_ports(1)
    with shared(port) as ports:
        async with pairs(ports, 8) as connected:
            router = ports._sockets[HOST]
            addresses = [(there.local_candidates[0].host, there.local_candidates[0].port) for _, there in connected]
            pending = [number for route in router._by_username.values() for number in route.asked] or [bytes(12)]
            for _ in range(2000):
                sender, victim = dice.randrange(8), dice.randrange(8)
                here, other = connected[sender][0], connected[victim][0]
                crossed = binding(other).replace(other.local_username.encode(), here.local_username.encode())
                own = [media(f"of {sender}"), binding(other, "wrong"), binding(here, other.local_password), crossed]
                answer = b"\x01\x01\0\0\x21\x12\xa4\x42" + dice.choice(pending)
                router.datagram_received(dice.choice([*own, answer]), addresses[sender])
                # Signed by the sender's own password, as if it came from the victim.
                router.datagram_received(binding(here), addresses[victim])
            for number, (here, _) in enumerate(connected):
                assert {here._queue.get_nowait() for _ in range(here._queue.qsize())} <= {(media(f"of {number}"), 1)}
                assert router._by_address[addresses[number]].protocol.receiver is here


async def test_ten_thousand_forged_packets_let_nobody_in_and_leave_nothing() -> None:
    """What they cost is measured by `python -m tests.benchmarks.forged`."""
    [port] = free_ports(1)
    with shared(port) as ports:
        async with pairs(ports, 4) as connected:
            router, before = ports._sockets[HOST], table(ports)
            ready = [forged(kind) for kind in KINDS for _ in range(500)]
            held = sys.getallocatedblocks()
            for number in range(10_000):
                router.datagram_received(ready[number % len(ready)], (f"192.0.2.{number % 250}", 1024 + number))
            assert sys.getallocatedblocks() - held < 1000
            assert table(ports) == before
            assert all(here._queue.empty() for here, _ in connected)


async def test_a_client_that_changes_its_address_is_followed() -> None:
    [port] = free_ports(1)
    with shared(port) as ports, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as moved:
        moved.setblocking(False)
        moved.bind((HOST, 0))
        async with pairs(ports, 1) as [(here, _)]:
            loop = asyncio.get_running_loop()
            moved.sendto(binding(here), (HOST, port))
            async with timeout(60):
                assert (await loop.sock_recv(moved, 2048))[:2] == b"\x01\x01"
                moved.sendto(media("from elsewhere"), (HOST, port))
                assert await here.recv() == media("from elsewhere")


async def test_a_client_costs_a_bounded_number_of_addresses_and_requests() -> None:
    [port] = free_ports(1)
    with shared(port) as ports:
        connection = await local(ports)
        router = ports._sockets[HOST]
        for number in range(3 * ASKED):
            router.datagram_received(binding(connection), ("192.0.2.1", 1024 + number))
        assert table(ports)[1] == ADDRESSES
        protocol = connection._protocols[0]
        for number in range(3 * ASKED):
            protocol.send_stun(stun.Message(stun.Method.BINDING, stun.Class.REQUEST), ("127.0.0.1", 1024 + number))
        assert table(ports)[2] <= ASKED
        await connection.close()
        assert table(ports) == (0, 0, 0)


async def test_a_port_that_is_taken_is_said_when_the_service_starts() -> None:
    [port] = free_ports(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((HOST, port))
        ports = SharedPort(port)
        with pytest.raises(OSError, match=f"UDP port {port} of {HOST}: Address already in use"):
            ports.start()
        ports.close()
        await asyncio.sleep(0)


async def test_sessions_of_a_service_have_one_port(service: RunningService, shown: Clip) -> None:
    url = f"http://127.0.0.1:{service.http_port}"
    async with viewer(url, Camera(shown)) as one, viewer(url, Camera(shown)) as two:
        for each in (one, two):
            await each.connect(mode="color", color="#0000ff")
        for each in (one, two):
            assert (await each.picture()).shape == (240, 320, 3)
        answers = [each.pc.remoteDescription.sdp.splitlines() for each in (one, two)]
        offered = [{line.split()[5] for line in lines if " udp " in line and f" {HOST} " in line} for lines in answers]
        assert offered[0] == offered[1]
        assert len(offered[0]) == 1


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ([(0x8022, b"abc"), (0x0006, b"here:there")], b"here"),
        ([(0x0006, b"here")], b"here"),
        ([(0x0024, b"\0\0\0\1")], b""),
        ([], b""),
    ],
)
def test_the_receiver_is_read_from_a_request(attributes: list[tuple[int, bytes]], found: bytes) -> None:
    body = b"".join(
        kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)
        for kind, value in attributes
    )
    message = b"\x00\x01" + len(body).to_bytes(2, "big") + bytes(16) + body
    assert receiver_of(message) == found
    for end in range(len(message)):
        assert found.startswith(receiver_of(message[:end]))
