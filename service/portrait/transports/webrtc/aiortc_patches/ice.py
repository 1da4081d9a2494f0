"""ICE for peers that leave attributes out, and for connections that are closed as they come up."""

from aioice import stun
from aioice.candidate import candidate_priority
from aioice.ice import Connection, StunProtocol


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
