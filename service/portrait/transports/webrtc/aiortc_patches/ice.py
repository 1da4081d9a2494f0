"""ICE for peers that leave attributes out or are late, for connections closed as they come up, and within bounds."""

import asyncio
import logging
from contextlib import suppress
from typing import Any

from aioice import stun
from aioice.candidate import Candidate, candidate_foundation, candidate_priority
from aioice.ice import Connection, StunProtocol
from aioice.utils import random_string

from portrait.transports.webrtc.aiortc_patches.media_ports import PORTS
from portrait.transports.webrtc.aiortc_patches.receiver import CameraPackets
from portrait.transports.webrtc.aiortc_patches.shared_port import SharedPort
from portrait.transports.webrtc.aiortc_patches.stun_heads import LAST_STUN
from portrait.transports.webrtc.aiortc_patches.tcp_port import TcpPort

USERNAME = 12
"""Characters of a username: it tells the connections of one port apart, for which aioice's 4 are too few."""

MOST_WAITING = 512
"""Datagrams that wait to be read. Nothing reads them before the connectivity checks are over, and anyone may send them:
with those of LARGEST bytes, two megabytes."""

MOST_ADDRESSES = 300
"""Addresses of one peer: a hundred that it offers, as many that it trickles, and those from which it sends requests
besides (peer-reflexive candidates, RFC 8445 section 7.3.1.3). Each costs a check of its own."""

FIRST_REQUEST_SECONDS = 0.5
"""How long a peer that made the offer has to send the first request. Nearly all can reach the service and have sent one
long before; one that cannot is checked from here after this time."""

TCP_PREFERENCE = 90
"""The type preference of a TCP host candidate, below that of UDP ones, 126 (RFC 6544 section 4.2). Browsers use it."""

PASSIVE = 4 << 13 | 8191
"""The local preference of a host candidate that waits for TCP connections, on a machine with one address (ibid.)."""

logger = logging.getLogger(__name__)


class LiveIce(Connection):
    """aioice's connection, bounded, which answers requests without PRIORITY and does nothing more once it is closed."""

    _is_closed = False
    cameras: CameraPackets | None = None
    """What takes the packets of known sources; the others wait to be read."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As aioice, under a name of its own: aiortc gives all connections of a peer that bundles none the same."""
        super().__init__(*arguments, **{**options, "local_username": random_string(USERNAME)})
        self._is_asked = asyncio.Event()

    async def connect(self) -> None:
        """As aioice, but where the peer made the offer, its first request comes before this side's.

        libdatachannel (OBS, node-datachannel) loses a connection if checks and DTLS are through before its application
        has stored the answer, for it then has no fingerprint to compare. It sends requests only after that.
        """
        if not self.ice_controlling:
            with suppress(TimeoutError):
                async with asyncio.timeout(FIRST_REQUEST_SECONDS):
                    await self._is_asked.wait()
        await super().connect()

    async def get_component_candidates(self, component: int, addresses: list[str], timeout: int = 5) -> list[Candidate]:
        """As aioice, and after them a TCP candidate for each address, where the shared port has TCP."""
        found = await super().get_component_candidates(component, addresses, timeout)
        ports = PORTS.get()
        if isinstance(ports, SharedPort) and ports.tcp is not None:
            found += [each for host in addresses if (each := self._tcp_candidate(ports.tcp, host, component))]
        return found

    def _tcp_candidate(self, port: TcpPort, host: str, component: int) -> Candidate | None:
        """A candidate to which clients connect (RFC 6544 section 4); None where its port cannot be opened."""
        protocol = StunProtocol(self)
        try:
            transport = port.add(host, protocol)
        except OSError as error:
            logger.warning("no ICE over TCP: %s", error)
            return None
        candidate = protocol.local_candidate = Candidate(
            foundation=candidate_foundation("host", "tcp", host),
            component=component,
            transport="tcp",
            priority=(TCP_PREFERENCE << 24) + (PASSIVE << 8) + 256 - component,
            host=host,
            port=transport.get_extra_info("sockname")[1],
            type="host",
            tcptype="passive",
        )
        self._protocols.append(protocol)
        return candidate

    def data_received(self, data: bytes, component: int) -> None:
        """As aioice, except that what finds no room is dropped, as in a socket's buffer, and STUN that does not parse.

        The latter may come from anyone who knows the connection's name.
        """
        if self.cameras is not None and self.cameras.take(data):
            return
        if data and data[0] > LAST_STUN and self._queue.qsize() < MOST_WAITING:
            super().data_received(data, component)

    def request_received(self, message: stun.Message, addr: tuple[str, int], protocol: StunProtocol) -> None:
        """As aioice, with PRIORITY taken for that of a peer-reflexive candidate where it is missing.

        RFC 8445 section 7.1.1 requires the attribute; FFmpeg 8 leaves it out.
        """
        component = protocol.local_candidate.component
        message.attributes.setdefault("PRIORITY", candidate_priority(component, "prflx"))
        super().request_received(message, addr, protocol)
        if self._early_checks:  # it was authentic
            self._is_asked.set()

    def check_incoming(self, message: stun.Message, addr: tuple[str, int], protocol: StunProtocol) -> None:
        """As aioice, unless the request comes from one address too many."""
        known = self._remote_candidates
        if len(known) < MOST_ADDRESSES or any((each._network_host, each.port) == addr for each in known):
            super().check_incoming(message, addr, protocol)

    async def query_consent(self) -> None:
        """As aioice, unless it is closed: `connect` may start this afterwards."""
        if not self._is_closed:
            await super().query_consent()

    async def close(self) -> None:
        """As aioice, and of what has started meanwhile as well."""
        self._is_closed = True
        self._is_asked.set()
        await super().close()
        if self._query_consent_task is not None:
            self._query_consent_task.cancel()
