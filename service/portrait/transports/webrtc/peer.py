"""The loopback: camera up and result down in one connection, by a session of its own."""

import asyncio
import logging
from typing import Any, TypeAlias

import av
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from portrait.errors import BadOffer, BadPicture
from portrait.latest import Closed, Latest
from portrait.session import Session
from portrait.transports.webrtc import realtime
from portrait.transports.webrtc.camera import Arrival, pump
from portrait.transports.webrtc.connection import Connection, open_ways

logger = logging.getLogger(__name__)

VideoSession: TypeAlias = Session[av.VideoFrame, av.VideoFrame]


class ResultTrack(MediaStreamTrack):
    """The outgoing video: pulls the newest camera frame through the session whenever the sender wants one."""

    kind = "video"

    def __init__(self, session: VideoSession, slot: Latest[Arrival]) -> None:
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
    """A connection bound to a session. The session's end is the peer's end; `run` is the whole life."""

    def __init__(self, session: VideoSession, idle_seconds: float) -> None:
        self._session, self._idle_seconds = session, idle_seconds
        self.connection = Connection(session.end)
        self._slot: Latest[Arrival] = Latest()
        self._camera: MediaStreamTrack | None = None

    async def answer(self, offer: str) -> str:
        """The SDP answer to an offer.

        Raises:
            BadOffer: not SDP, no video to receive, or nothing in common.
            NoMediaPort: every UDP port for media is taken.
        """
        return await self.connection.answer(offer, self._take_video)

    async def run(self) -> None:
        """Carry frames until the session is ended or the other side goes away."""
        tasks = [
            asyncio.create_task(self.connection.watch_connecting(), name="webrtc-connecting"),
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
        await self.connection.close()

    def _take_video(self, transceivers: list[Any]) -> None:
        """Answer the first video track and decline everything else: whatever is accepted must be drained."""
        for transceiver in transceivers:
            if transceiver.kind == "video" and self._camera is None and open_ways(transceiver) == {"send", "recv"}:
                self._camera = transceiver.receiver.track
                realtime.steer(transceiver.receiver)
                transceiver.sender.replaceTrack(ResultTrack(self._session, self._slot))
                transceiver.direction = "sendrecv"
            else:
                transceiver.direction = "inactive"
        if self._camera is None:
            raise BadOffer("sdp", "the offer sends no video, or takes none; expected one that is sendrecv")

    async def _pump(self) -> None:
        assert self._camera is not None
        self._session.end(await pump(self._camera, self.connection.connected, self._slot, self._idle_seconds))
