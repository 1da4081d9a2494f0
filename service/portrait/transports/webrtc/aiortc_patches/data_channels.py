"""SCTP of clients: what they send on data channels is not read and not kept, and no packet costs more than it should.

aiortc keeps the parts of a message until all have arrived, without a bound, and scans all parts again for each. It
never ends reading a parameter of no length, does work for 65,535 packets for each of the thousand gaps that an
acknowledgement can name, and answers each of the hundreds of chunks that fit one packet.
"""

import logging
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from aiortc.rtcdatachannel import RTCDataChannel
from aiortc.rtcsctptransport import (
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    SCTP_TSN_MODULO,
    WEBRTC_DCEP,
    Chunk,
    DataChunk,
    ForwardTsnChunk,
    InitChunk,
    ReconfigChunk,
    RTCSctpTransport,
    SackChunk,
    padl,
    parse_packet,
    tsn_plus_one,
)
from aiortc.utils import uint32_gte

logger = logging.getLogger(__name__)

WHOLE = SCTP_DATA_FIRST_FRAG | SCTP_DATA_LAST_FRAG
"""Flags of a message in one packet."""

MOST_CHANNELS = 16
"""Channels that a client may have open at once."""

MOST_MISORDERED = 256
"""Packets that have arrived before an earlier one. Further ones are not acknowledged, as when a buffer is full (RFC
9260 section 6.2)."""

MOST_PARAMETERS = 2
"""Of a RE-CONFIG chunk: a request and a response at most (RFC 6525 section 3.1)."""

PARAMETER_HEAD = 4
"""Bytes before a parameter's value, its type and its length; the length counts them (RFC 9260 section 3.2.1)."""


def read_nothing(sctp: RTCSctpTransport) -> None:
    """Let clients open and close channels; acknowledge everything else they send, and drop it."""
    replaced: Any = sctp
    replaced._handle_data = partial(_handle, sctp)
    replaced._receive_data_chunk = partial(_receive, sctp)


REPLACED = ("_handle_data", "_receive_data_chunk")
"""The attributes that `read_nothing` sets. Each refers to its own transport."""


def decode_params(body: bytes) -> list[tuple[int, bytes]]:
    """The parameters of a chunk, as type and value. Replaces aiortc's.

    Raises:
        ValueError: one is shorter than its head, or cut short.
    """
    parameters, at = [], 0
    while at + PARAMETER_HEAD <= len(body):
        kind, length = struct.unpack_from("!HH", body, at)
        if length < PARAMETER_HEAD or at + length > len(body):
            raise ValueError(f"got a parameter of {length} bytes, expected {PARAMETER_HEAD} to {len(body) - at}")
        parameters.append((kind, body[at + PARAMETER_HEAD : at + length]))
        at += length + padl(length)
    return parameters


async def _handle(sctp: Any, data: bytes) -> None:
    """Take a packet. One that is not SCTP, or not what aiortc expects, is dropped: it is its sender's loss alone."""
    try:
        _, _, tag, chunks = parse_packet(data)
        begins = any(isinstance(chunk, InitChunk) for chunk in chunks)
        if tag != (0 if begins else sctp._local_verification_tag) or (begins and len(chunks) > 1):
            return
        for chunk in _limited(sctp, chunks):
            await sctp._receive_chunk(chunk)
        if sctp._sack_needed:
            await sctp._send_sack()
    except ConnectionError:
        raise
    except Exception as error:
        logger.debug("an SCTP packet ignored: %r", error)


def _limited(sctp: Any, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """All DATA chunks of a packet, and one chunk of each other type, as all SCTP sends them."""
    seen: set[int] = set()
    for chunk in chunks:
        if not isinstance(chunk, DataChunk):
            if chunk.type in seen:
                continue
            seen.add(chunk.type)
        if isinstance(chunk, ForwardTsnChunk):
            chunk.streams.clear()  # nothing of them is kept that they could advance
        elif isinstance(chunk, ReconfigChunk):
            del chunk.params[MOST_PARAMETERS:]
        elif isinstance(chunk, SackChunk):
            outstanding = (sctp._local_tsn - 1 - chunk.cumulative_tsn) % SCTP_TSN_MODULO
            if outstanding >= SCTP_TSN_MODULO // 2:
                continue  # it acknowledges what has never been sent
            chunk.gaps = list(_ascending(chunk.gaps, outstanding))
        yield chunk


def _ascending(gaps: Iterable[tuple[int, int]], most: int) -> Iterator[tuple[int, int]]:
    """The gap blocks that follow each other and end before what has not been sent (RFC 9260 section 3.3.4)."""
    last = 0
    for begin, end in gaps:
        if last < begin <= end <= most:
            last = end
            yield begin, end


async def _receive(sctp: Any, chunk: DataChunk) -> None:
    sctp._sack_needed = True
    if not _mark_received(sctp, chunk.tsn):
        return
    channels: dict[int, RTCDataChannel] = sctp._data_channels
    known = chunk.stream_id in channels or len(channels) < MOST_CHANNELS
    if chunk.protocol == WEBRTC_DCEP and chunk.flags & WHOLE == WHOLE and known:
        with suppress(AssertionError, ValueError, struct.error):  # raised for messages that open no channel
            await sctp._receive(chunk.stream_id, chunk.protocol, chunk.user_data)
    await sctp._reset_deferred_streams()


def _mark_received(sctp: Any, tsn: int) -> bool:
    """Note that a packet has come. Returns whether it is new and will be acknowledged."""
    misordered: set[int] = sctp._sack_misordered
    if uint32_gte(sctp._last_received_tsn, tsn) or tsn in misordered:
        sctp._sack_duplicates.append(tsn)
        return False
    if tsn != tsn_plus_one(sctp._last_received_tsn):
        if len(misordered) >= MOST_MISORDERED:
            return False
        misordered.add(tsn)
        return True
    while (following := tsn_plus_one(tsn)) in misordered:
        misordered.discard(following)
        tsn = following
    sctp._last_received_tsn = tsn
    return True
