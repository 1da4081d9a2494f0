"""The way up, which the loopback and WHIP share: a camera's newest frames into a session."""

import asyncio
import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, Generic, TypeAlias, TypeVar

import av
from aiortc import MediaStreamTrack, RTCDataChannel
from aiortc.mediastreams import MediaStreamError

from portrait.errors import BadPicture, SegmentationHangs
from portrait.latest import Closed, Latest
from portrait.session import Session
from portrait.transports.webrtc import realtime
from portrait.transports.webrtc.connection import Connection

logger = logging.getLogger(__name__)

W = TypeVar("W")

Arrival: TypeAlias = tuple[av.VideoFrame, float]
"""A decoded picture and when it came, on the monotonic clock."""


EVENTS = "events"
"""Label of the channel on which a client that opens it is told what concerns its session."""


class Uplink(ABC, Generic[W]):
    """A connection whose camera feeds a session. The session's end is the connection's; `run` is the whole life."""

    def __init__(self, session: Session[av.VideoFrame, W], idle_seconds: float) -> None:
        self.session, self._idle_seconds = session, idle_seconds
        self.connection = Connection(session.end)
        self.camera: MediaStreamTrack | None = None
        self._bandwidth: realtime.Bandwidth | None = None
        self._slot: Latest[Arrival] = Latest()
        self._dropped = 0
        self._events: asyncio.Future[RTCDataChannel] = asyncio.get_running_loop().create_future()
        self.connection.pc.on("datachannel", self.take_channel)

    async def answer(self, offer: str) -> str:
        """The SDP answer to an offer.

        Raises:
            BadOffer: not SDP, not the media this connection is for, or nothing in common.
            NoMediaPort: every UDP port for media is taken.
        """
        return await self.connection.answer(offer, self.direct)

    @abstractmethod
    def direct(self, transceivers: list[Any]) -> None:
        """Say of every media section what becomes of it; exactly one is given to `take_camera`.

        Raises:
            UnsupportedOffer: the sections are not what this connection is for.
        """

    def take_camera(self, transceiver: Any) -> None:
        """Let this section's track be the camera."""
        self.camera = transceiver.receiver.track
        self._bandwidth = realtime.steer(transceiver.receiver)

    def take_channel(self, channel: RTCDataChannel) -> None:
        """Keep a channel that the client has opened, or close it: nobody would answer there."""
        if channel.label == EVENTS and not self._events.done():
            self._events.set_result(channel)
        else:
            channel.close()

    async def run(self, *work: Coroutine[Any, Any, None]) -> None:
        """Carry frames, and do `work` beside it, until the session is ended or the other side goes away."""
        lives = (self.connection.watch(), self._pump(), self._say_goaway(), *work)
        tasks = [asyncio.create_task(life, name="webrtc-uplink") for life in lives]
        try:
            await self.session.wait_ended()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def newest(self) -> Arrival:
        """The newest picture; those it replaced are counted.

        Raises:
            Closed: the connection is being closed.
        """
        await self.session.pace()
        arrival = await self._slot.get()
        self.session.drop(self._slot.dropped - self._dropped)
        self._dropped = self._slot.dropped
        return arrival

    async def result(self, arrival: Arrival) -> W | None:
        """What the session makes of a picture; None when it is refused.

        Raises:
            Exception: it could not be composed; the session is ended with the reason.
        """
        try:
            return (await self.session.turn(*arrival)).wire
        except BadPicture as error:
            self.session.refuse(error)
            return None
        except SegmentationHangs:  # the session has ended, and said why
            raise
        except Exception as error:
            # aiortc would end the track and say nothing: a picture that stands still until the idle limit.
            logger.exception("a frame of session %s could not be composed", self.session.short_id)
            self.session.end(f"a frame could not be composed: {error}")
            raise

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        self._slot.close()
        await self.connection.close()

    async def _say_goaway(self) -> None:
        """Tell the client that the session will be ended, while it still goes on."""
        seconds = await self.session.wait_leaving()
        channel = await self._events
        if channel.readyState == "open":
            channel.send(json.dumps({"goaway": seconds}))

    async def _pump(self) -> None:
        """Empty the camera's track into the slot as fast as it fills: aiortc queues without bound."""
        assert self.camera is not None
        assert self._bandwidth is not None
        reason = "the camera's track ended"
        try:
            await self.connection.connected.wait()
            while True:
                async with asyncio.timeout(self._idle_seconds):
                    picture = await self.camera.recv()
                assert isinstance(picture, av.VideoFrame)
                self._bandwidth.allow(picture.width * picture.height)
                self._slot.put((picture, time.monotonic()))
        except TimeoutError:
            reason = f"no frame for {self._idle_seconds:g} s"
        except (MediaStreamError, Closed):
            pass
        self.session.end(reason)
