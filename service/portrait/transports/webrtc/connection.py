"""What all peer connections of the service share: answering an offer, watching the peer, closing."""

import asyncio
import logging
import re
from asyncio import timeout
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import OperationError
from aiortc.sdp import candidate_from_sdp

from portrait.errors import BadOffer, NoMediaPort, PortraitError, UnsupportedOffer
from portrait.transports.webrtc.aiortc_patches.data_channels import read_nothing
from portrait.transports.webrtc.aiortc_patches.release import release
from portrait.transports.webrtc.offer_limits import MOST_CANDIDATES, check_fragment, check_offer
from portrait.transports.webrtc.session_description import parse_offer, start_high

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
"""A peer that has not connected by then is dropped: it holds ports meanwhile."""

CLOSE_SECONDS = 5.0
"""Closing sends a few packets. aiortc waits without end for a task of its own that has died, and the session with
it."""

SILENT_SECONDS = 5.0
"""A peer from which nothing arrives for this long has vanished: media or reports (RTCP) arrive every second. ICE's
consent checks would notice after 30 s (RFC 7675)."""

CHECK_SECONDS = 0.5

NO_PORT_RETRY = 5.0
"""Seconds after which a client may try again when no UDP port was free."""

MDNS_CANDIDATE = re.compile(r"^a=candidate:\S+ \S+ \S+ \S+ \S+\.local .*\r?\n", re.MULTILINE)


@contextmanager
def errors_as_bad_offer() -> Iterator[None]:
    """Raise whatever aiortc raises because of an offer as a BadOffer; its own message, which is Python's, is logged."""
    try:
        yield
    except OSError:  # no port, no descriptor: the box's trouble, not the offer's
        raise
    except OperationError as error:
        raise UnsupportedOffer(
            "sdp", "got no codec that can be used, expected VP8, or H264 in packetization mode 0 or 1"
        ) from error
    except Exception as error:
        logger.info("an offer could not be answered: %r", error)
        raise BadOffer("sdp", "the offer cannot be answered, expected one as browsers make it (RFC 8829)") from error


@asynccontextmanager
async def running(end: Callable[[str], None], name: str, *parts: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run the parts of a connection beside the block, in tasks of that name; `end` is called when one fails.

    The block does not await them, so that without `end` a connection would continue silently without one of its parts.
    """

    async def run(part: Coroutine[Any, Any, None]) -> None:
        try:
            await part
        except PortraitError as failure:
            end(str(failure))
        except Exception as failure:
            logger.exception("a part of a connection failed")
            end(f"a part of the connection failed: {failure}")

    tasks = [asyncio.create_task(run(part), name=name) for part in parts]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for part in parts:
            part.close()  # one whose task has not started yet


def directions_left(transceiver: Any) -> set[str]:
    """What the offer lets this side do with a media section: "send", "recv", both or neither."""
    # aiortc has reversed the offer's direction already.
    return {way for way in ("send", "recv") if way in (transceiver._offerDirection or "")}


class Connection:
    """A peer connection that answers. `end` is called with the reason when it cannot connect or is lost."""

    def __init__(self, end: Callable[[str], None]) -> None:
        self._end = end
        # No servers: a box on premises asks none outside for its address.
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.connected = asyncio.Event()
        self._trickled = 0
        self.pc.on("connectionstatechange", self._state_changed)

    async def answer(self, offer: str, direct: Callable[[list[Any]], None]) -> str:
        """The SDP answer to an offer; `direct` sets the directions of its transceivers, in order, or raises.

        Raises:
            BadOffer: not SDP, no codec in common (UnsupportedOffer), or what `direct` raises.
            NoMediaPort: every UDP port for media is taken.
        """
        check_offer(offer)
        parsed = parse_offer(offer)
        with errors_as_bad_offer():
            await self.pc.setRemoteDescription(RTCSessionDescription(parsed.text, "offer"))
        if self.pc.sctp is not None:
            read_nothing(self.pc.sctp)
        direct(self.pc.getTransceivers())
        with errors_as_bad_offer():
            await self.pc.setLocalDescription(await self.pc.createAnswer())
        answer = str(self.pc.localDescription.sdp)
        if "a=candidate:" not in answer:
            raise NoMediaPort("no UDP port for media is free", NO_PORT_RETRY)
        return parsed.complete(start_high(answer))

    @property
    def etag(self) -> str:
        """The entity tag of this ICE session (RFC 9725 section 4.3.1): another after an ICE restart."""
        found = re.search(r"^a=ice-ufrag:(\S+)", self.pc.localDescription.sdp, re.MULTILINE)
        return f'"{found[1] if found else "none"}"'

    async def add_candidates(self, fragment: str) -> None:
        """Take the candidates of a trickle-ice-sdpfrag (RFC 8840), except those behind mDNS.

        Raises:
            BadOffer: not a fragment, it restarts ICE, or there are too many candidates.
        """
        check_fragment(fragment)
        parameters = dict(re.findall(r"^a=(ice-ufrag|ice-pwd):(\S+)", fragment, re.MULTILINE))
        if not parameters:
            raise BadOffer("sdpfrag", "got no a=ice-ufrag, expected a trickle-ice-sdpfrag (RFC 8840)")
        remote = re.search(r"^a=ice-ufrag:(\S+)", self.pc.remoteDescription.sdp, re.MULTILINE)
        if remote is None or parameters.get("ice-ufrag") != remote[1]:
            raise BadOffer("sdpfrag", "got another a=ice-ufrag, expected the offer's: connect anew to restart ICE")
        middle = re.search(r"^a=mid:(\S+)", fragment, re.MULTILINE)
        lines = re.findall(r"^a=candidate:(.+?)\r?$", MDNS_CANDIDATE.sub("", fragment), re.MULTILINE)
        self._trickled += len(lines)
        if self._trickled > MOST_CANDIDATES:
            raise BadOffer("sdpfrag", f"got {self._trickled} candidates, expected at most {MOST_CANDIDATES}")
        for line in lines:
            try:
                candidate = candidate_from_sdp(line)
            except (AssertionError, IndexError, ValueError):
                continue
            candidate.sdpMid = middle[1] if middle else None
            candidate.sdpMLineIndex = 0
            await self.pc.addIceCandidate(candidate)

    async def watch(self, *, while_sending: bool = False) -> None:
        """End the connection when the peer does not connect in time, or vanishes.

        With `while_sending` silence counts only while this side sends media: a viewer has nothing else to report.
        """
        try:
            async with timeout(CONNECT_SECONDS):
                await self.connected.wait()
        except TimeoutError:
            self._end(f"not connected within {CONNECT_SECONDS:g} s")
            return
        heard, sent, silent = 0, 0, 0.0
        while silent < SILENT_SECONDS:
            # Checks are counted, not seconds: on a box that stalls, packets that have arrived wait to be read.
            await asyncio.sleep(CHECK_SECONDS)
            before = heard, sent
            heard, sent = await self._count_packets()
            if heard != before[0]:
                silent = 0.0
            elif sent != before[1] or not while_sending:
                silent += CHECK_SECONDS
        self._end(f"nothing arrived for {SILENT_SECONDS:g} s")

    async def _count_packets(self) -> tuple[int, int]:
        """(packets of any kind received, media packets sent) since the beginning."""
        statistics = [await transceiver.sender.getStats() for transceiver in self.pc.getTransceivers()]
        reports = [report for each in statistics for report in each.values()]
        heard = max((report.packetsReceived for report in reports if report.type == "transport"), default=0)
        return heard, sum(report.packetsSent for report in reports if report.type == "outbound-rtp")

    async def close(self) -> None:
        """Close the connection; a part that does not close in time is abandoned. Idempotent."""
        # aiortc closes by itself when the peer says goodbye. If that fails, every later `close` waits for it forever.
        own = self.pc._RTCPeerConnection__closeTask  # type: ignore[attr-defined]
        closing = own if own is not None else asyncio.ensure_future(self.pc.close())
        try:
            async with timeout(CLOSE_SECONDS):
                await asyncio.shield(closing)  # cancelled half-way, it would keep its sockets
                await self.pc.close()
        except Exception:
            # It closes part after part and stops at one that an offer has left half made; the others hold sockets.
            logger.warning("a connection could not be closed in order", exc_info=True)
            transports = list(self.pc._RTCPeerConnection__iceTransports)  # type: ignore[attr-defined]
            await asyncio.gather(*(transport.stop() for transport in transports), return_exceptions=True)
        release(self.pc)
        self._end = _end_nothing  # it belongs to the connection's owner, which would never be freed

    def _state_changed(self) -> None:
        state = self.pc.connectionState
        if state == "connected":
            self.connected.set()
        elif state == "failed" and self.pc.iceConnectionState == "completed":
            self._end("the DTLS handshake failed: one side's certificate is not the one that it has announced")
        elif state in ("failed", "closed"):
            self._end(f"the connection is {state}")


def _end_nothing(_: str) -> None:
    """For a connection that is closed already."""
