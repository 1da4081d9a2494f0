"""ICE over TCP: a TCP connection is a session's once it has proved so, and costs little until then."""

import asyncio
import random
import re
from asyncio import timeout
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from aioice import Connection

from portrait.server.app import run_service
from portrait.settings import Settings
from portrait.transports.webrtc import aiortc_patches
from portrait.transports.webrtc.aiortc_patches import tcp_port
from portrait.transports.webrtc.aiortc_patches.ice import LiveIce
from portrait.transports.webrtc.aiortc_patches.media_ports import advertise, media_ports
from portrait.transports.webrtc.aiortc_patches.shared_port import SharedPort
from portrait.transports.webrtc.aiortc_patches.tcp_port import (
    LARGEST,
    LATE,
    MOST_NEW,
    MOST_NEW_OF_ADDRESS,
    MOST_OF_SESSION,
    URGENT,
    WAITING,
    Outgoing,
    TcpPort,
    picture_of,
)
from tests.people import Clip
from tests.ports import free_ports
from tests.rtc import Camera, viewer
from tests.tcp_ice import ActiveTcp, connect_over_tcp, framed
from tests.test_shared_port import HOST, binding, local, media
from tests.whip import shown

__all__ = ["shown"]  # a fixture

pytestmark = pytest.mark.usefixtures("no_sockets_left")

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Opened:
    """A shared port with TCP, and what it has counted."""

    def __init__(self) -> None:
        [self.number] = free_ports(1)
        self.refused: Counter[str] = Counter()
        self.tcp = TcpPort(self.number, lambda reason: self.refused.update([reason]))
        self.port = SharedPort(self.number, self.tcp)

    @property
    def connections(self) -> int:
        """TCP connections of sessions."""
        return sum(len(share._connections) for each in self.tcp._listeners.values() for share in each.shares.values())

    async def connect(self, source: str = HOST) -> Streams:
        return await asyncio.open_connection(HOST, self.number, local_addr=(source, 0))

    async def ask(self, request: bytes, source: str = HOST) -> Streams:
        streams = await self.connect(source)
        streams[1].write(framed(request))
        return streams


@contextmanager
def opened() -> Iterator[Opened]:
    aiortc_patches.install()
    made = Opened()
    with media_ports(asyncio.get_running_loop(), made.port):
        made.port.start()
        yield made
    assert not made.tcp._new


async def ended(streams: Streams) -> bytes:
    """What a connection still brings until the service closes it."""
    reader, writer = streams
    async with timeout(60):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


async def packet(streams: Streams) -> bytes:
    async with timeout(60):
        return await streams[0].readexactly(int.from_bytes(await streams[0].readexactly(2), "big"))


async def remote(to: Connection) -> tuple[Connection, ActiveTcp]:
    """A client of a connection, by TCP."""
    client = Connection(ice_controlling=True, use_ipv6=False, use_ipv4=False)
    await client.gather_candidates()
    [candidate] = [each for each in to.local_candidates if each.transport == "tcp" and each.host == HOST]
    active = await connect_over_tcp(client, HOST, candidate.port)
    await client.add_remote_candidate(candidate)
    for one, other in ((client, to), (to, client)):
        one.remote_username, one.remote_password = other.local_username, other.local_password
    await asyncio.gather(client.connect(), to.connect())
    return client, active


@asynccontextmanager
async def pairs(port: Opened, count: int) -> AsyncIterator[list[tuple[LiveIce, Connection]]]:
    """Sessions and their clients, all connected by TCP."""
    here = [await local(port.port) for _ in range(count)]
    there = [client for client, _ in await asyncio.gather(*map(remote, here))]
    try:
        yield list(zip(here, there, strict=True))
    finally:
        await asyncio.gather(*(connection.close() for connection in (*here, *there)))


async def test_sessions_share_the_port_of_udp_and_each_gets_what_is_its_own() -> None:
    with opened() as port:
        async with pairs(port, 8) as connected:
            for number, (here, there) in enumerate(connected):
                assert {each.port for each in here.local_candidates} == {port.number}
                for word in range(5):
                    await there.send(media(f"up {number} {word}"))
            for number, (here, there) in enumerate(connected):
                async with timeout(60):
                    assert [await here.recv() for _ in range(5)] == [media(f"up {number} {w}") for w in range(5)]
                    await here.send(media(f"down {number}"))
                    assert await there.recv() == media(f"down {number}")
                assert here._queue.empty()
            assert port.connections == 8
        assert port.connections == 0
        assert not port.refused


async def test_candidates_are_passive_and_below_those_of_udp() -> None:
    with opened() as port:
        connection = await local(port.port)
        by_udp, by_tcp = (
            [each for each in connection.local_candidates if each.transport == kind] for kind in ("udp", "tcp")
        )
        assert [(each.host, each.port) for each in by_udp] == [(each.host, each.port) for each in by_tcp]
        assert {each.tcptype for each in by_tcp} == {"passive"}
        assert max(each.priority for each in by_tcp) < min(each.priority for each in by_udp)
        line = f"a=candidate:{by_tcp[0].to_sdp()}\r\n"
        first, further = advertise(line, ["192.0.2.1"]).splitlines()
        assert first == line.strip()
        assert re.fullmatch(rf"a=candidate:\S+ 1 tcp \d+ 192.0.2.1 {port.number} typ host tcptype passive", further)
        await connection.close()


async def test_packets_that_come_in_pieces_or_together_are_told_apart() -> None:
    with opened() as port:
        here = await local(port.port)
        streams = await port.ask(binding(here))
        assert (await packet(streams))[:2] == b"\x01\x01"
        here._nominated[1] = here._protocols[0]  # type: ignore[assignment]  # so that it can be read from
        sent = [media(str(number)) * 40 for number in range(20)]
        whole = b"".join(map(framed, [b"", *sent, bytes([128]) * LARGEST]))  # a packet without bytes is legal
        for start in range(0, 2000, 7):
            streams[1].write(whole[start : min(start + 7, 2000)])
            await asyncio.sleep(0)
        streams[1].write(whole[2000:])
        async with timeout(60):
            assert [await here.recv() for _ in range(21)] == [*sent, bytes([128]) * LARGEST]
        here._nominated.clear()
        streams[1].close()
        await here.close()


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"\0\0", "malformed"),
        (b"\xff\xff" + bytes(10), "malformed"),
        (b"GET / HTTP/1.1\r\n\r\n", "malformed"),
        (b"\x16\x03\x01\x02\x00\x01", "malformed"),  # TLS
        (framed(media("a picture")), "malformed"),
        (framed(b"\x01\x01" + bytes(18)), "malformed"),
        (framed(b"\x00\x01" + bytes(18)), "unauthenticated"),
        (framed(b"\x00\x01"), "unauthenticated"),
    ],
)
async def test_what_is_not_a_request_of_a_session_closes_the_connection_without_an_answer(
    sent: bytes, reason: str
) -> None:
    with opened() as port:
        streams = await port.connect()
        streams[1].write(sent)
        assert await ended(streams) == b""
        assert port.refused == {reason: 1}


async def test_random_bytes_and_unknown_names_and_wrong_passwords_are_refused() -> None:
    dice = random.Random(5)
    with opened() as port:
        async with pairs(port, 1) as [(here, there)]:
            stranger = LiveIce(ice_controlling=False)
            requests = [binding(here, "wrong"), binding(stranger), *(dice.randbytes(100) for _ in range(20))]
            for request in requests:
                assert await ended(await port.ask(request)) == b""
            assert port.refused.total() == len(requests)
            await there.send(media("mine"))
            async with timeout(60):
                assert await here.recv() == media("mine")
            assert here._queue.empty()
            assert port.connections == 1


async def test_a_connection_is_one_sessions_only() -> None:
    """Its packets reach the session that it has proved to be of, whatever they name."""
    with opened() as port:
        async with pairs(port, 2) as [(victim, _), (other, _)]:
            streams = await port.ask(binding(other))
            assert (await packet(streams))[:2] == b"\x01\x01"
            streams[1].write(framed(binding(victim)) + framed(media("whose?")))
            async with timeout(60):
                assert await other.recv() == media("whose?")
            assert victim._queue.empty()
            assert (await packet(streams))[:2] in (b"\x01\x11", b"\x00\x01")
            streams[1].close()


async def test_a_connection_that_says_nothing_or_little_is_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_port, "FIRST_SECONDS", 0.2)
    with opened() as port:
        here = await local(port.port)
        silent, slow, gone = [await port.connect() for _ in range(3)]
        gone[1].close()
        request = framed(binding(here))

        async def dribble() -> None:
            for byte in request[:-1]:
                slow[1].write(bytes([byte]))
                await asyncio.sleep(0.02)

        task = asyncio.create_task(dribble())
        assert await ended(silent) == b""
        assert await ended(slow) == b""
        task.cancel()
        assert port.refused == {"silent": 3}
        await here.close()


async def test_new_connections_are_bounded_and_the_oldest_makes_room() -> None:
    with opened() as port:
        async with pairs(port, 1):
            crowd = [await port.connect() for _ in range(MOST_NEW_OF_ADDRESS + 4)]
            for streams in crowd[:4]:
                assert await ended(streams) == b""
            assert port.refused == {"too_many": 4}
            assert port.connections == 1
            for _, writer in crowd[4:]:
                writer.close()


async def test_new_connections_of_many_addresses_are_bounded_too() -> None:
    with opened() as port:
        crowd = []
        port.tcp.listen("127.0.0.1")
        for number in range(MOST_NEW + 4):
            source = f"127.0.1.{1 + number // (MOST_NEW_OF_ADDRESS - 1)}"
            crowd.append(await asyncio.open_connection("127.0.0.1", port.number, local_addr=(source, 0)))
        for streams in crowd[:4]:
            assert await ended(streams) == b""
        assert port.refused == {"too_many": 4}
        assert len(port.tcp._new) == MOST_NEW
        for _, writer in crowd[4:]:
            writer.close()


async def test_a_session_has_a_bounded_number_of_connections() -> None:
    with opened() as port:
        here = await local(port.port)
        crowd = []
        for _ in range(MOST_OF_SESSION + 2):
            crowd.append(await port.ask(binding(here)))
            assert (await packet(crowd[-1]))[:2] == b"\x01\x01"
        assert port.connections == MOST_OF_SESSION
        for streams in crowd[:2]:
            await ended(streams)
        await here.close()
        for streams in crowd[2:]:
            await ended(streams)
        assert port.connections == 0


async def test_a_client_that_connects_again_is_followed() -> None:
    """As browsers do when the connection breaks: from another port, and with the selection that they have made."""
    with opened() as port:
        here = await local(port.port)
        client, active = await remote(here)
        await client.send(media("before"))
        async with timeout(60):
            assert await here.recv() == media("before")
        active.stream.abort()
        client, _ = await again(client, here)
        async with timeout(60):
            while port.connections != 1 or here._nominated[1].remote_addr != own(client):
                await asyncio.sleep(0.01)
        await here.send(media("after"))
        async with timeout(60):
            assert await client.recv() == media("after")
        await asyncio.gather(client.close(), here.close())


async def again(old: Connection, to: LiveIce) -> tuple[Connection, ActiveTcp]:
    """A connection of the same client with the same names."""
    client = Connection(
        True, use_ipv4=False, use_ipv6=False, local_username=old.local_username, local_password=old.local_password
    )
    await client.gather_candidates()
    [candidate] = [each for each in to.local_candidates if each.transport == "tcp" and each.host == HOST]
    active = await connect_over_tcp(client, HOST, candidate.port)
    await client.add_remote_candidate(candidate)
    client.remote_username, client.remote_password = to.local_username, to.local_password
    await client.connect()
    return client, active


def own(client: Connection) -> tuple[str, int]:
    candidate = client._protocols[0].local_candidate
    return candidate.host, candidate.port


def rtp(timestamp: int, size: int = 1200, source: int = 7) -> bytes:
    return bytes([128, 96, 0, 1]) + timestamp.to_bytes(4, "big") + source.to_bytes(4, "big") + bytes(size - 12)


def drain(outgoing: Outgoing, now: float) -> list[bytes]:
    return [each[2:] for each in iter(lambda: outgoing.next(now), b"")]


def test_what_would_be_late_is_dropped_and_with_it_its_whole_picture() -> None:
    outgoing = Outgoing()
    for timestamp in (1, 2):
        for _ in range(3):
            outgoing.add(rtp(timestamp), 10 + timestamp * LATE / 2)
    assert outgoing.next(10 + LATE)[2:] == rtp(1)
    assert drain(outgoing, 10 + 1.75 * LATE) == [rtp(2)] * 3


def test_the_rest_of_a_picture_that_was_given_up_is_not_sent_and_the_next_one_is() -> None:
    outgoing = Outgoing()
    outgoing.add(rtp(1), 10)
    outgoing.add(rtp(1), 10 + 2 * LATE)
    outgoing.add(rtp(1), 10 + 2 * LATE)
    outgoing.add(rtp(2), 10 + 2 * LATE)
    assert drain(outgoing, 10 + 2 * LATE) == [rtp(2)]
    # Asked for again, it is sent.
    outgoing.add(rtp(1), 10 + 2 * LATE)
    assert drain(outgoing, 10 + 2 * LATE) == [rtp(1)]


def test_what_waits_is_bounded_and_stun_overtakes_it() -> None:
    outgoing = Outgoing()
    for timestamp in range(2000):
        outgoing.add(rtp(timestamp), 10)
        outgoing.add(b"\x01\x01" + bytes([timestamp % 256]), 10)
        outgoing.add(b"\x17" + bytes(100), 10)  # DTLS
    waiting = drain(outgoing, 10)
    assert [each[0] for each in waiting[:URGENT]] == [1] * URGENT
    assert all(each[0] in (128, 0x17) for each in waiting[URGENT:])
    assert sum(map(len, waiting)) <= WAITING + URGENT * 3


def test_reports_and_other_packets_are_no_pictures() -> None:
    assert picture_of(rtp(5)) == picture_of(rtp(5, size=40)) != picture_of(rtp(5, source=8))
    assert picture_of(bytes([128, 200]) + bytes(40)) == b""
    assert picture_of(bytes([22]) + bytes(40)) == b""
    assert picture_of(b"\x80`") == b""


async def test_a_client_that_reads_nothing_costs_a_bounded_amount_and_gets_what_is_new() -> None:
    with opened() as port:
        here = await local(port.port)
        streams = await port.ask(binding(here))
        reader = streams[0]
        assert (await packet(streams))[:2] == b"\x01\x01"
        [share] = [each for listener in port.tcp._listeners.values() for each in listener.shares.values()
                   if each._connections]  # fmt: skip
        [(address, connection)] = share._connections.items()
        streams[1].transport.pause_reading()  # type: ignore[attr-defined]
        for timestamp in range(30 * 200):
            share.sendto(rtp(timestamp), address)
            assert connection._outgoing._size <= WAITING
        streams[1].transport.resume_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(2 * LATE)
        share.sendto(rtp(999_999), address)
        async with timeout(60):
            while (await packet((reader, streams[1]))) != rtp(999_999):
                pass
        streams[1].close()
        await here.close()


@pytest.mark.parametrize(("end", "seconds"), [("reads", 600), ("goes", 600), ("vanishes", 0.3)])
async def test_a_sender_waits_while_its_client_reads_nothing_and_goes_on_when_it_reads_or_goes(
    monkeypatch: pytest.MonkeyPatch, end: str, seconds: float
) -> None:
    monkeypatch.setattr(tcp_port, "LATE", seconds)
    with opened() as port:
        here = await local(port.port)
        streams = await port.ask(binding(here))
        assert (await packet(streams))[:2] == b"\x01\x01"
        [share] = [each for listener in port.tcp._listeners.values() for each in listener.shares.values()
                   if each._connections]  # fmt: skip
        [address] = share._connections
        await share.wait_for_room(address)
        streams[1].transport.pause_reading()  # type: ignore[attr-defined]
        for timestamp in range(5000):
            share.sendto(rtp(timestamp), address)
        waiting = asyncio.create_task(share.wait_for_room(address))
        await asyncio.sleep(0)  # it begins to wait
        assert not waiting.done()
        if end != "vanishes":  # then it may be over as soon as this test runs again
            await asyncio.sleep(0.1)
            assert not waiting.done()
        if end == "reads":
            streams[1].transport.resume_reading()  # type: ignore[attr-defined]
            reading = asyncio.create_task(streams[0].read())
        elif end == "goes":
            streams[1].transport.abort()
        async with timeout(60):
            await waiting
        await here.close()
        if end == "reads":
            await reading
        streams[1].transport.abort()


async def test_a_request_whose_answer_finds_the_client_gone_leaves_nothing() -> None:
    with opened() as port:
        here = await local(port.port)
        for _ in range(20):
            streams = await port.ask(binding(here))
            streams[1].transport.abort()
        async with timeout(60):
            while port.connections or port.tcp._new:
                await asyncio.sleep(0.01)
        await here.close()


@pytest.mark.parametrize("tcp", [True, False])
async def test_a_service_offers_tcp_unless_it_is_switched_off(settings: Settings, shown: Clip, tcp: bool) -> None:
    async with (
        run_service(settings.model_copy(update={"media_tcp": tcp})) as service,
        viewer(f"http://127.0.0.1:{service.http_port}", Camera(shown)) as client,
    ):
        await client.connect(mode="color", color="#0000ff")
        assert (await client.picture()).shape == (240, 320, 3)
        assert ("tcptype passive" in client.pc.remoteDescription.sdp) is tcp
