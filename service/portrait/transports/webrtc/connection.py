"""What every peer connection of the service shares: answering an offer, its ports, its end."""

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
from portrait.transports.webrtc import aiortc_patches
from portrait.transports.webrtc.aiortc_patches.data_channels import read_nothing
from portrait.transports.webrtc.offer_limits import MOST_CANDIDATES, check_fragment, check_offer

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
"""A peer that has not connected by then is gone; it holds ports until it is."""

CLOSE_SECONDS = 5.0
"""Closing sends a few packets. One of aiortc's tasks that has died would be waited for for ever, with its session."""

SILENT_SECONDS = 5.0
"""A peer of which nothing comes for so long has vanished: media and its reports (RTCP) come every second. ICE's consent
checks would notice after 30 s (RFC 7675)."""

LOOK_SECONDS = 0.5

NO_PORT_RETRY = 5.0
"""Seconds after which a client may try again when no UDP port was free."""

MDNS_CANDIDATE = re.compile(r"^a=candidate:\S+ \S+ \S+ \S+ \S+\.local .*\r?\n", re.MULTILINE)


@contextmanager
def blaming_the_offer() -> Iterator[None]:
    """Checking as it goes, aiortc raises whatever its first wrong step raises, StopIteration included."""
    try:
        yield
    except OSError:  # no port, no descriptor: the box's trouble, not the offer's
        raise
    except OperationError as error:
        raise UnsupportedOffer("sdp", f"no codec in common ({error}); expected VP8 or H264") from error
    except Exception as error:
        raise BadOffer("sdp", f"the offer cannot be answered: {error or type(error).__name__}") from error


@asynccontextmanager
async def beside(end: Callable[[str], None], name: str, *lives: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run coroutines for the length of the block, in tasks of that name. `end` is told when one fails.

    Nobody awaits them before the end: without it a connection would go on without one of its parts, and say nothing.
    """

    async def live(life: Coroutine[Any, Any, None]) -> None:
        try:
            await life
        except PortraitError as failure:
            end(str(failure))
        except Exception as failure:
            logger.exception("a part of a connection failed")
            end(f"a part of the connection failed: {failure}")

    tasks = [asyncio.create_task(live(life), name=name) for life in lives]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for life in lives:
            life.close()  # one whose task had no turn yet


def open_ways(transceiver: Any) -> set[str]:
    """What the offer lets this side do with a media section: "send", "recv", both or neither."""
    # aiortc keeps the offer's direction turned round already.
    return {way for way in ("send", "recv") if way in (transceiver._offerDirection or "")}


def without_names(offer: str) -> str:
    """An offer without the candidates that hide behind mDNS names, as those of browsers without camera permission do.

    For them aioice would wait a second. The connection comes up without them, peer-reflexive: so the candidates are not
    at their end either, or aioice, left with none, would gather none of its own.
    """
    found = MDNS_CANDIDATE.sub("", offer)
    return found if found == offer else found.replace("a=end-of-candidates\r\n", "")


class Connection:
    """A peer connection that answers. `end` is told the reason when it cannot come up or has gone down."""

    def __init__(self, end: Callable[[str], None]) -> None:
        self._end = end
        # No servers: a box on premises asks nobody outside for its address.
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.connected = asyncio.Event()
        self._trickled = 0
        self.pc.on("connectionstatechange", self._state_changed)

    async def answer(self, offer: str, take: Callable[[list[Any]], None]) -> str:
        """The SDP answer to an offer; `take` directs its transceivers, in order, or raises.

        Raises:
            BadOffer: not SDP, nothing in common (UnsupportedOffer), or what `take` raises.
            NoMediaPort: every UDP port for media is taken.
        """
        if not offer.startswith("v=0"):
            raise BadOffer("sdp", f"the body starts with {offer[:20]!r}; expected an SDP offer, v=0")
        check_offer(offer)
        description = RTCSessionDescription(without_names(offer), "offer")
        with blaming_the_offer():
            await self.pc.setRemoteDescription(description)
        if self.pc.sctp is not None:
            read_nothing(self.pc.sctp)
        take(self.pc.getTransceivers())
        with blaming_the_offer():
            await self.pc.setLocalDescription(await self.pc.createAnswer())
        answer = str(self.pc.localDescription.sdp)
        if "a=candidate:" not in answer:
            raise NoMediaPort("no UDP port for media is free", NO_PORT_RETRY)
        return aiortc_patches.start_high(answer)

    @property
    def etag(self) -> str:
        """The entity tag of this ICE session (RFC 9725 section 4.3.1): another after an ICE restart."""
        found = re.search(r"^a=ice-ufrag:(\S+)", self.pc.localDescription.sdp, re.MULTILINE)
        return f'"{found[1] if found else "none"}"'

    async def add_candidates(self, fragment: str) -> None:
        """Take the candidates of a trickle-ice-sdpfrag (RFC 8840); those that cannot be reached are left out.

        Raises:
            BadOffer: the fragment restarts ICE or is none, or there are too many candidates.
        """
        check_fragment(fragment)
        parameters = dict(re.findall(r"^a=(ice-ufrag|ice-pwd):(\S+)", fragment, re.MULTILINE))
        if not parameters:
            raise BadOffer("sdpfrag", "no a=ice-ufrag came; expected a trickle-ice-sdpfrag")
        remote = re.search(r"^a=ice-ufrag:(\S+)", self.pc.remoteDescription.sdp, re.MULTILINE)
        if remote is None or parameters.get("ice-ufrag") != remote[1]:
            raise BadOffer("sdpfrag", "another a=ice-ufrag came; ICE restarts are not supported, connect anew")
        middle = re.search(r"^a=mid:(\S+)", fragment, re.MULTILINE)
        lines = re.findall(r"^a=candidate:(.+?)\r?$", MDNS_CANDIDATE.sub("", fragment), re.MULTILINE)
        self._trickled += len(lines)
        if self._trickled > MOST_CANDIDATES:
            raise BadOffer("sdpfrag", f"{self._trickled} candidates came; expected {MOST_CANDIDATES} at most")
        for line in lines:
            try:
                candidate = candidate_from_sdp(line)
            except (AssertionError, IndexError, ValueError):
                continue
            candidate.sdpMid = middle[1] if middle else None
            candidate.sdpMLineIndex = 0
            await self.pc.addIceCandidate(candidate)

    async def watch(self, *, while_sending: bool = False) -> None:
        """Give up on a peer that does not connect in time, or has vanished.

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
            # Looks are counted, not seconds: on a box that stalls, what has come waits to be heard.
            await asyncio.sleep(LOOK_SECONDS)
            before = heard, sent
            heard, sent = await self._count_packets()
            if heard != before[0]:
                silent = 0.0
            elif sent != before[1] or not while_sending:
                silent += LOOK_SECONDS
        self._end(f"nothing came for {SILENT_SECONDS:g} s")

    async def _count_packets(self) -> tuple[int, int]:
        """(packets of any kind that came, packets of media that went) since the beginning."""
        statistics = [await transceiver.sender.getStats() for transceiver in self.pc.getTransceivers()]
        reports = [report for each in statistics for report in each.values()]
        heard = max((report.packetsReceived for report in reports if report.type == "transport"), default=0)
        return heard, sum(report.packetsSent for report in reports if report.type == "outbound-rtp")

    async def close(self) -> None:
        """Close the connection; what of it does not end in time is left behind. Idempotent."""
        # When its peer says goodbye it closes by itself. If that fails, whoever closes it again waits for ever.
        own = self.pc._RTCPeerConnection__closeTask  # type: ignore[attr-defined]
        closing = own if own is not None else asyncio.ensure_future(self.pc.close())
        try:
            async with timeout(CLOSE_SECONDS):
                await asyncio.shield(closing)  # cut off in the middle, it would keep its sockets
                await self.pc.close()
        except Exception:
            # It closes part after part and stops at one that an offer has left half made; the others hold sockets.
            logger.warning("a connection could not be closed in order", exc_info=True)
            transports = list(self.pc._RTCPeerConnection__iceTransports)  # type: ignore[attr-defined]
            await asyncio.gather(*(transport.stop() for transport in transports), return_exceptions=True)

    def _state_changed(self) -> None:
        state = self.pc.connectionState
        if state == "connected":
            self.connected.set()
        elif state in ("failed", "closed"):
            self._end(f"the connection is {state}")
