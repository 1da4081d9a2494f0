"""Data channels of clients that mean harm: nothing of what they send is kept, and nothing of it raises."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcsctptransport import (
    DATA_CHANNEL_OPEN,
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    SCTP_DATA_UNORDERED,
    WEBRTC_BINARY,
    WEBRTC_DCEP,
    DataChunk,
)

from portrait.transports.webrtc.aiortc_patches.data_channels import MOST_CHANNELS, MOST_MISORDERED
from portrait.transports.webrtc.connection import Connection
from tests.rtc import hang_up

WHOLE = SCTP_DATA_FIRST_FRAG | SCTP_DATA_LAST_FRAG
OPENING = bytes([DATA_CHANNEL_OPEN]) + bytes(11)


@pytest.fixture
async def sctp() -> AsyncIterator[Any]:
    """The service's end of an association, about to hear of packet 1."""
    client = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    client.addTransceiver("video")
    client.createDataChannel("events")
    await client.setLocalDescription(await client.createOffer())
    connection = Connection(lambda _: None)
    answer = await connection.answer(client.localDescription.sdp, lambda _: None)
    await client.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    transport: Any = connection.pc.sctp
    transport._last_received_tsn = 0
    yield transport
    await connection.close()
    await hang_up(client)


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
