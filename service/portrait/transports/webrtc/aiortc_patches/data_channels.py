"""What clients send on data channels: nobody reads it, so nothing is kept of it.

aiortc keeps the parts of a message until all have come, without a bound, and looks at every part again with each.
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
"""Flags of a message of one packet."""

MOST_CHANNELS = 16
"""That a client may have open at once."""

MOST_MISORDERED = 256
"""Packets that came before an earlier one; further ones are not acknowledged, as where there is no room for them (RFC
9260 section 6.2)."""


def read_nothing(sctp: RTCSctpTransport) -> None:
    """Let clients open and close channels, and acknowledge and forget all else they send."""
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
        with suppress(AssertionError, ValueError, struct.error):  # as it answers what is no opening
            await sctp._receive(chunk.stream_id, chunk.protocol, chunk.user_data)
    await sctp._reset_deferred_streams()
