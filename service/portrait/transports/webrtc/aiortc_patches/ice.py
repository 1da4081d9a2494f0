"""ICE and STUN: cheap for media, and no exception whatever a peer or a stranger sends."""

import logging
from typing import Any

from aioice import stun
from aioice.candidate import candidate_priority
from aioice.ice import Connection, StunProtocol

logger = logging.getLogger(__name__)

LAST_STUN = 3
"""The largest first byte of a STUN message (RFC 7983 section 7)."""


class LiveIce(Connection):
    """aioice's connection, which answers requests without PRIORITY and does nothing more once it is closed."""

    _is_closed = False

    def request_received(self, message: stun.Message, addr: tuple[str, int], protocol: StunProtocol) -> None:
        """As aioice, with PRIORITY taken for that of a peer-reflexive candidate where it is missing.

        RFC 8445 section 7.1.1 requires the attribute; FFmpeg 8 leaves it out.
        """
        component = protocol.local_candidate.component
        message.attributes.setdefault("PRIORITY", candidate_priority(component, "prflx"))
        super().request_received(message, addr, protocol)

    async def query_consent(self) -> None:
        """As aioice, unless it is closed: `connect` may start this afterwards."""
        if not self._is_closed:
            await super().query_consent()

    async def close(self) -> None:
        """As aioice, and of what has started meanwhile as well."""
        self._is_closed = True
        await super().close()
        if self._query_consent_task is not None:
            self._query_consent_task.cancel()


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
