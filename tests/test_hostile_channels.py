"""Data channels of clients that mean harm: nothing of what they send is kept, and nothing of it raises."""

import asyncio
import struct
import time
from asyncio import timeout
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcdtlstransport import State
from aiortc.rtcsctptransport import (
    CHUNK_TYPES,
    DATA_CHANNEL_OPEN,
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    SCTP_DATA_UNORDERED,
    WEBRTC_BINARY,
    WEBRTC_DCEP,
    AbortChunk,
    Chunk,
    DataChunk,
    ErrorChunk,
    ForwardTsnChunk,
    HeartbeatChunk,
    InitAckChunk,
    InitChunk,
    ReconfigChunk,
    SackChunk,
    ShutdownChunk,
    crc32c,
)

from portrait.transports.webrtc.aiortc_patches import install
from portrait.transports.webrtc.aiortc_patches.data_channels import MOST_CHANNELS, MOST_MISORDERED, MOST_PARAMETERS
from portrait.transports.webrtc.aiortc_patches.udp_socket import LARGEST
from portrait.transports.webrtc.connection import Connection
from tests.rtc import hang_up

WHOLE = SCTP_DATA_FIRST_FRAG | SCTP_DATA_LAST_FRAG
OPENING = bytes([DATA_CHANNEL_OPEN]) + bytes(11)


@pytest.fixture
async def peers() -> AsyncIterator[tuple[Any, Any]]:
    """A client's end of an association, and the service's."""
    install()
    client = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    client.addTransceiver("video")
    client.createDataChannel("events")
    await client.setLocalDescription(await client.createOffer())
    connection = Connection(lambda _: None)
    answer = await connection.answer(client.localDescription.sdp, lambda _: None)
    await client.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    yield client.sctp, connection.pc.sctp
    await connection.close()
    await hang_up(client)


@pytest.fixture
async def sctp(peers: tuple[Any, Any]) -> Any:
    """The service's end of an association, about to hear of packet 1."""
    transport = peers[1]
    transport._last_received_tsn = 0
    return transport


def chunk(
    tsn: int, flags: int = WHOLE, stream: int = 0, data: bytes = b"x", protocol: int = WEBRTC_BINARY
) -> DataChunk:
    made = DataChunk()
    made.tsn, made.flags, made.stream_id, made.stream_seq = tsn, flags, stream, 0
    made.user_data, made.protocol = data, protocol
    return made


def kept(sctp: Any) -> int:
    return sum(len(stream.reassembly) for stream in sctp._inbound_streams.values())


@pytest.mark.parametrize("flags", [0, SCTP_DATA_FIRST_FRAG, SCTP_DATA_UNORDERED, SCTP_DATA_LAST_FRAG, WHOLE])
async def test_messages_are_acknowledged_and_forgotten(sctp: Any, flags: int) -> None:
    """Those that never end among them, and those that wait for an earlier one."""
    for tsn in range(1, 2001):
        part = chunk(tsn, flags, stream=tsn % 7, data=bytes(1000))
        part.stream_seq = 3
        await sctp._receive_chunk(part)
    assert sctp._last_received_tsn == 2000
    assert kept(sctp) == 0


async def test_a_packet_that_never_comes_is_waited_for_with_few_others(sctp: Any) -> None:
    for tsn in range(2, 2000):
        await sctp._receive_chunk(chunk(tsn))
    assert len(sctp._sack_misordered) == MOST_MISORDERED
    assert sctp._last_received_tsn == 0
    await sctp._receive_chunk(chunk(1))  # it comes after all, and what was told of the others holds
    assert sctp._last_received_tsn == MOST_MISORDERED + 1
    assert not sctp._sack_misordered


async def test_so_many_channels_are_opened_and_no_more(sctp: Any) -> None:
    for tsn in range(1, 1000):
        await sctp._receive_chunk(chunk(tsn, stream=2 * tsn, data=OPENING, protocol=WEBRTC_DCEP))
    assert len(sctp._data_channels) == MOST_CHANNELS


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00", OPENING[:-1], OPENING, b"\x02", b"\x03" + b"\xff" * 11, OPENING[:9] + b"\x03\x00\x00\xff\xff\xff"],
)
async def test_an_opening_that_is_none_or_comes_twice_is_no_trouble(sctp: Any, data: bytes) -> None:
    for tsn in range(1, 4):
        await sctp._receive_chunk(chunk(tsn, data=data, protocol=WEBRTC_DCEP))
    assert sctp._last_received_tsn == 3


def packet(sctp: Any, *chunks: bytes) -> bytes:
    """An SCTP packet of the client's, of chunks that are bytes already."""
    head, body = struct.pack("!HHL", 5000, 5000, sctp._local_verification_tag), b"".join(chunks)
    return head + struct.pack("<L", crc32c(head + bytes(4) + body)) + body


def raw(kind: int, body: bytes) -> bytes:
    return struct.pack("!BBH", kind, 0, len(body) + 4) + body + bytes(-len(body) % 4)


def sack(sctp: Any, gaps: list[tuple[int, int]], ahead: int = 0) -> bytes:
    head = struct.pack("!LLHH", (sctp._last_sacked_tsn + ahead) % 2**32, 2**20, len(gaps), 0)
    return raw(SackChunk.type, head + b"".join(struct.pack("!HH", *gap) for gap in gaps))


EVERYTHING = [(1, 65535)] * 900
WITH_PARAMETERS = (AbortChunk, ErrorChunk, HeartbeatChunk, InitChunk, InitAckChunk, ReconfigChunk)


@pytest.mark.parametrize("kind", WITH_PARAMETERS)
@pytest.mark.parametrize("length", [0, 3, 5, 65535])
async def test_a_parameter_of_no_length_is_not_read_for_ever(sctp: Any, kind: type[Chunk], length: int) -> None:
    """The parser of aiortc did not advance at a length of 0: one packet of 20 bytes held a worker up for ever."""
    fixed = bytes(16) if kind in (InitChunk, InitAckChunk) else b""
    before = sctp._association_state
    async with timeout(5):
        await sctp._handle_data(packet(sctp, raw(kind.type, fixed + struct.pack("!HH", 7, length))))
    assert sctp._association_state is before


async def test_an_acknowledgement_costs_no_more_than_what_was_sent(sctp: Any) -> None:
    """A SACK of 4 KB can name 65,535 packets 900 times, which held the event loop up for seconds."""
    began = time.thread_time()
    for ahead in (0, 5, 2**31 - 1, 2**31):
        await sctp._handle_data(packet(sctp, sack(sctp, EVERYTHING, ahead)))
    assert time.thread_time() - began < 0.5


async def test_gaps_that_a_client_may_name_are_acknowledged(sctp: Any) -> None:
    """Of five packets the second and the fourth have come: those are not sent again, and the others are in time."""
    first, sent = sctp._local_tsn, [DataChunk() for _ in range(5)]
    for number, each in enumerate(sent):
        each.tsn, each.user_data = (first + number) % 2**32, b"x"
        each._acked, each._abandoned, each._retransmit, each._in_flight = False, False, False, True
        each._book_size, each._misses, each._sent_count, each._sent_time = 1, 0, 1, 0.0
        each._max_retransmits = each._expiry = None
    sctp._sent_queue.extend(sent)
    sctp._flight_size, sctp._local_tsn = 5, (first + 5) % 2**32
    await sctp._handle_data(packet(sctp, sack(sctp, [(2, 2), (4, 4), (3, 3), (7, 9)])))
    assert [each._acked for each in sent] == [False, True, False, True, False]


@pytest.mark.parametrize(
    ("chunk", "most"),
    [
        (raw(HeartbeatChunk.type, struct.pack("!HH", 1, 4)), 1),
        (raw(ShutdownChunk.type, bytes(4)), 1),
        (raw(ReconfigChunk.type, struct.pack("!HHLHH", 17, 12, 1, 1, 0) * 20), MOST_PARAMETERS),
    ],
    ids=["heartbeat", "shutdown", "reconfiguration"],
)
async def test_a_packet_is_answered_once_however_many_requests_it_has(sctp: Any, chunk: bytes, most: int) -> None:
    sent: list[Chunk] = []

    async def send(answer: Chunk) -> None:
        sent.append(answer)

    sctp._send_chunk, sctp._association_state = send, sctp.State.ESTABLISHED
    await sctp._handle_data(packet(sctp, *[chunk] * (4000 // len(chunk))))
    assert 0 < len(sent) <= most


async def test_streams_that_a_client_skips_are_not_kept(sctp: Any) -> None:
    for begin in range(0, 5000, 500):
        streams = b"".join(struct.pack("!HH", stream, 1) for stream in range(begin, begin + 500))
        await sctp._handle_data(packet(sctp, raw(ForwardTsnChunk.type, struct.pack("!L", begin + 1) + streams)))
    assert sctp._last_received_tsn == 4501
    assert not sctp._inbound_streams


@pytest.mark.parametrize("kind", sorted(CHUNK_TYPES))
async def test_chunks_of_any_length_change_nothing_but_their_own_association(sctp: Any, kind: int) -> None:
    """Cut short they raised an error that ended the connection with a traceback in the log."""
    for length in range(40):
        for body in (bytes(length), b"\xff" * length):
            await sctp._handle_data(packet(sctp, raw(kind, body)))
    assert not sctp._data_channels


async def test_all_records_of_a_datagram_are_read(peers: tuple[Any, Any]) -> None:
    """One was read; the others made a buffer of OpenSSL's grow, for as long as the connection lasted."""
    client, service = peers
    received: list[bytes] = []

    async def take(data: bytes) -> None:
        received.append(data)

    service._handle_data, dtls = take, client.transport
    async with timeout(20):
        while not dtls._state is service.transport._state is State.CONNECTED:
            await asyncio.sleep(0.01)
        records = []
        for number in range(50):
            dtls._ssl.send(bytes([number]))
            records.append(dtls._ssl.bio_read(LARGEST))
        await dtls.transport._send(b"".join(records))
        while [data for data in received if len(data) == 1] != [bytes([number]) for number in range(50)]:
            await asyncio.sleep(0.01)
