"""WHIP (RFC 9725): a camera up; what becomes of it goes to the stream's viewers."""

import asyncio
import logging
from typing import Any, TypeAlias

import av
from aiortc import MediaStreamTrack

from portrait.errors import BadOffer, BadPicture
from portrait.latest import Closed, Latest
from portrait.session import Session
from portrait.transports.webrtc import realtime
from portrait.transports.webrtc.camera import Arrival, pump
from portrait.transports.webrtc.connection import Connection, open_ways
from portrait.transports.webrtc.streams import Stream

logger = logging.getLogger(__name__)

StreamSession: TypeAlias = Session[av.VideoFrame, dict[str, av.VideoFrame]]


class Publisher:
    """A connection bound to a session and a stream; `run` is the whole life."""

    def __init__(self, session: StreamSession, stream: Stream, idle_seconds: float) -> None:
        self._session, self._stream, self._idle_seconds = session, stream, idle_seconds
        self.connection = Connection(session.end)
        self._slot: Latest[Arrival] = Latest()
        self._camera: MediaStreamTrack | None = None

    async def answer(self, offer: str) -> str:
        """The SDP answer to an offer; it receives only.

        Raises:
            BadOffer: not SDP, not exactly one video to receive, or nothing in common.
            NoMediaPort: every UDP port for media is taken.
        """
        return await self.connection.answer(offer, self._take_video)

    async def run(self) -> None:
        """Carry frames until the session is ended or the camera goes away."""
        tasks = [
            asyncio.create_task(self.connection.watch_connecting(), name="whip-connecting"),
            asyncio.create_task(self._pump(), name="whip-pump"),
            asyncio.create_task(self._work(), name="whip-work"),
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
        for transceiver in transceivers:
            if transceiver.kind != "video" or "recv" not in open_ways(transceiver):
                transceiver.direction = "inactive"
                continue
            if self._camera is not None:
                raise BadOffer("sdp", "the offer sends more than one video; expected one (RFC 9725 section 4.4)")
            self._camera = transceiver.receiver.track
            realtime.steer(transceiver.receiver)
            transceiver.direction = "recvonly"
        if self._camera is None:
            raise BadOffer("sdp", "the offer sends no video; expected one video section that is sendonly")

    async def _pump(self) -> None:
        assert self._camera is not None
        self._session.end(await pump(self._camera, self.connection.connected, self._slot, self._idle_seconds))

    async def _work(self) -> None:
        """Every newest frame through the session and to the viewers; without viewers no frame costs anything."""
        dropped = 0
        while True:
            try:
                picture, arrived = await self._slot.get()
            except Closed:
                return
            self._session.drop(self._slot.dropped - dropped)
            dropped = self._slot.dropped
            if not self._stream.wanted:
                self._session.drop(1, "no_viewer")
                continue
            try:
                turn = await self._session.turn(picture, arrived)
            except BadPicture as error:
                self._session.refuse(error)
                continue
            except Exception as error:
                logger.exception("session %s: a frame could not be composed", self._session.id[:6])
                self._session.end(f"a frame could not be composed: {error}")
                return
            self._stream.show(turn.wire)
