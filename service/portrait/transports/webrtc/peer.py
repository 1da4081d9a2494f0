"""One WebRTC connection: camera up, result down."""

import asyncio
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import av
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError

from portrait.errors import BadOffer, BadPicture, NoMediaPort
from portrait.latest import Closed, Latest
from portrait.session import Session
from portrait.transports.webrtc import realtime

logger = logging.getLogger(__name__)

VideoSession: TypeAlias = Session[av.VideoFrame, av.VideoFrame]

CONNECT_SECONDS = 10.0
"""A peer that has not connected by then is gone; it holds ports and a session until it is."""

NO_PORT_RETRY = 5.0
"""Seconds after which a client may try again when no UDP port was free."""

MDNS_CANDIDATE = re.compile(r"^a=candidate:\S+ \S+ \S+ \S+ \S+\.local .*\r?\n", re.MULTILINE)


@contextmanager
def _blaming_the_offer() -> Iterator[None]:
    """Checking as it goes, aiortc raises whatever its first wrong step raises, StopIteration included."""
    try:
        yield
    except OSError:  # no port, no descriptor: the box's trouble, not the offer's
        raise
    except Exception as error:
        raise BadOffer("sdp", f"the offer cannot be answered: {error or type(error).__name__}") from error


class ResultTrack(MediaStreamTrack):
    """The outgoing video: pulls the newest camera frame through the session whenever the sender wants one."""

    kind = "video"

    def __init__(self, session: VideoSession, slot: Latest[tuple[av.VideoFrame, float]]) -> None:
        super().__init__()
        self._session, self._slot = session, slot
        self._dropped = 0

    async def recv(self) -> av.VideoFrame:
        """The next result, at the time of its input.

        Raises:
            MediaStreamError: the camera's track has ended.
        """
        while True:
            try:
                picture, arrived = await self._slot.get()
            except Closed:
                self.stop()
                raise MediaStreamError from None
            self._session.drop(self._slot.dropped - self._dropped)
            self._dropped = self._slot.dropped
            try:
                turn = await self._session.turn(picture, arrived)
            except BadPicture as error:
                self._session.refuse(error)
                continue
            except Exception as error:
                # aiortc would end the track and say nothing: a picture that stands still until the idle limit.
                logger.exception("session %s: a frame could not be composed", self._session.id[:6])
                self._session.end(f"a frame could not be composed: {error}")
                raise MediaStreamError from error
            return turn.wire


class Peer:
    """A peer connection bound to a session. The session's end is the peer's end; `run` is the whole life."""

    def __init__(self, session: VideoSession, idle_seconds: float) -> None:
        self._session, self._idle_seconds = session, idle_seconds
        # No servers: a box on premises asks nobody outside for its address.
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._slot: Latest[tuple[av.VideoFrame, float]] = Latest()
        self._connected = asyncio.Event()
        self._pc.on("connectionstatechange", self._connection_changed)

    async def answer(self, offer: str) -> str:
        """The SDP answer to an offer.

        Raises:
            BadOffer: not SDP, no video to receive, or nothing in common.
            NoMediaPort: every UDP port for media is taken.
        """
        if not offer.startswith("v=0"):
            raise BadOffer("sdp", f"the body starts with {offer[:20]!r}; expected an SDP offer, v=0")
        # Browsers without camera permission hide their addresses behind mDNS names, for which aioice would wait a
        # second; the connection comes up without them, peer-reflexive.
        description = RTCSessionDescription(MDNS_CANDIDATE.sub("", offer), "offer")
        with _blaming_the_offer():
            await self._pc.setRemoteDescription(description)
        self._take_video()
        with _blaming_the_offer():
            await self._pc.setLocalDescription(await self._pc.createAnswer())
        if "a=candidate:" not in self._pc.localDescription.sdp:
            raise NoMediaPort("no UDP port for media is free", NO_PORT_RETRY)
        return realtime.start_high(self._pc.localDescription.sdp)

    async def run(self) -> None:
        """Carry frames until the session is ended or the other side goes away."""
        tasks = [
            asyncio.create_task(self._watch_connecting(), name="webrtc-connecting"),
            asyncio.create_task(self._pump(), name="webrtc-pump"),
        ]
        try:
            await self._session.wait_ended()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        self._slot.close()
        await self._pc.close()

    def _take_video(self) -> None:
        """Answer the first video track and decline everything else: whatever is accepted must be drained."""
        self._camera: MediaStreamTrack | None = None
        for transceiver in self._pc.getTransceivers():
            if transceiver.kind == "video" and self._camera is None and "send" in (transceiver._offerDirection or ""):
                self._camera = transceiver.receiver.track
                realtime.steer(transceiver.receiver)
                transceiver.sender.replaceTrack(ResultTrack(self._session, self._slot))
                transceiver.direction = "sendrecv"
            else:
                transceiver.direction = "inactive"
        if self._camera is None:
            raise BadOffer("sdp", "the offer sends no video; expected one video section that is sendrecv or sendonly")

    async def _pump(self) -> None:
        """Empty the camera's track into the slot as fast as it fills: aiortc queues without bound."""
        assert self._camera is not None
        reason = "the camera's track ended"
        try:
            await self._connected.wait()
            while True:
                async with asyncio.timeout(self._idle_seconds):
                    picture = await self._camera.recv()
                assert isinstance(picture, av.VideoFrame)
                self._slot.put((picture, time.monotonic()))
        except TimeoutError:
            reason = f"no frame for {self._idle_seconds:g} s"
        except (MediaStreamError, Closed):
            pass
        self._session.end(reason)

    async def _watch_connecting(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._connected.wait()
        except TimeoutError:
            self._session.end(f"not connected within {CONNECT_SECONDS:g} s")

    def _connection_changed(self) -> None:
        state = self._pc.connectionState
        if state == "connected":
            self._connected.set()
        elif state in ("failed", "closed"):
            self._session.end(f"the connection is {state}")
