"""The way up, which the loopback and WHIP share: a camera's newest frames into a session."""

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

from aiortc import RTCDataChannel

from portrait.errors import BadPicture, SegmentationHangs
from portrait.sessions.newest_slot import Closed, NewestSlot
from portrait.sessions.session import Session
from portrait.transports.webrtc import aiortc_patches
from portrait.transports.webrtc.aiortc_patches.video_decoders import Coded, Undecoded
from portrait.transports.webrtc.connection import Connection, beside

W = TypeVar("W")

EVENTS = "events"
"""Label of the channel on which a client that opens it is told what concerns its session."""


class Uplink(ABC, Generic[W]):
    """A connection whose camera feeds a session. The session's end is the connection's; `run` is the whole life."""

    def __init__(self, session: Session[Coded, W], idle_seconds: float) -> None:
        self.session, self._idle_seconds = session, idle_seconds
        self.connection = Connection(session.end)
        self.camera: Undecoded | None = None
        self._bandwidth: aiortc_patches.Bandwidth | None = None
        self._slot: NewestSlot[float] = NewestSlot()
        """When the newest picture came. The pictures themselves wait at the camera: not one may be left out."""
        self._dropped, self._heard = 0, 0.0
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
        self.camera = aiortc_patches.leave_undecoded(transceiver.receiver, self._came, self._gone)
        self._bandwidth = aiortc_patches.steer(transceiver.receiver)

    def take_channel(self, channel: RTCDataChannel) -> None:
        """Keep a channel that the client has opened, or close it: nobody would answer there."""
        if channel.label == EVENTS and not self._events.done():
            self._events.set_result(channel)
        else:
            channel.close()

    async def run(self, *work: Coroutine[Any, Any, None]) -> None:
        """Carry frames, and do `work` beside it, until the session is ended or the other side goes away."""
        lives = (self.connection.watch(), self._watch_idle(), self._say_goaway(), *work)
        async with beside(self.session.end, "webrtc-uplink", *lives):
            await self.session.wait_ended()

    async def newest(self) -> float:
        """When the newest picture came, on the monotonic clock; those it replaced are counted.

        To be followed at once by `result` or `skip`.

        Raises:
            Closed: the connection is being closed.
        """
        await self.session.pace()
        arrived = await self._slot.get()
        self.session.drop(self._slot.dropped - self._dropped)
        self._dropped = self._slot.dropped
        return arrived

    async def result(self, arrived: float) -> W | None:
        """What the session makes of the newest picture; None when it is refused.

        Raises:
            Exception: it could not be composed; the session is ended with the reason.
        """
        assert self.camera is not None
        assert self._bandwidth is not None
        try:
            wire = (await self.session.process(self.camera.take(), arrived)).wire
            self._bandwidth.allow(self.session.load.width * self.session.load.height)
            return wire
        except BadPicture:  # counted by the session
            return None
        except SegmentationHangs:  # the session has ended, and said why
            raise
        except Exception as error:
            self.session.end(f"a frame could not be composed: {error}")
            raise

    async def skip(self, arrived: float, reason: str) -> None:
        """Give the newest picture up."""
        assert self.camera is not None
        await self.session.skip(self.camera.take(), arrived, reason)

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

    def _came(self) -> None:
        self._heard = time.monotonic()
        with suppress(Closed):  # the last packets of a connection that is being closed
            self._slot.put(self._heard)

    def _gone(self) -> None:
        self.session.end("the camera's track ended")

    async def _watch_idle(self) -> None:
        await self.connection.connected.wait()
        self._heard = time.monotonic()
        left = self._idle_seconds
        while left > 0:
            await asyncio.sleep(left)
            left = self._heard + self._idle_seconds - time.monotonic()
        self.session.end(f"no frame for {self._idle_seconds:g} s")
