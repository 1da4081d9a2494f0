"""Messages of clients on data channels, which the service does not read and therefore does not keep.

aiortc keeps the parts of a message until all have arrived, without a bound, and scans all parts again for each.
"""

import struct
from contextlib import suppress
from functools import partial
from typing import Any

from aiortc.rtcdatachannel import RTCDataChannel
from aiortc.rtcsctptransport import (
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    WEBRTC_DCEP,
    DataChunk,
    RTCSctpTransport,
    tsn_plus_one,
)

WHOLE = SCTP_DATA_FIRST_FRAG | SCTP_DATA_LAST_FRAG
"""Flags of a message in one packet."""

MOST_CHANNELS = 16
"""Channels that a client may have open at once."""

MOST_MISORDERED = 256
"""Packets that have arrived before an earlier one. Further ones are not acknowledged, as when a buffer is full (RFC
9260 section 6.2)."""


def read_nothing(sctp: RTCSctpTransport) -> None:
    """Let clients open and close channels; acknowledge everything else they send, and drop it."""
    sctp._receive_data_chunk = partial(_receive, sctp)  # type: ignore[method-assign]


async def _receive(sctp: Any, chunk: DataChunk) -> None:
    sctp._sack_needed = True
    expected = chunk.tsn == tsn_plus_one(sctp._last_received_tsn)
    if not expected and len(sctp._sack_misordered) >= MOST_MISORDERED:
        return
    if sctp._mark_received(chunk.tsn):
        return
    channels: dict[int, RTCDataChannel] = sctp._data_channels
    known = chunk.stream_id in channels or len(channels) < MOST_CHANNELS
    if chunk.protocol == WEBRTC_DCEP and chunk.flags & WHOLE == WHOLE and known:
        with suppress(AssertionError, ValueError, struct.error):  # raised for messages that open no channel
            await sctp._receive(chunk.stream_id, chunk.protocol, chunk.user_data)
    await sctp._reset_deferred_streams()
