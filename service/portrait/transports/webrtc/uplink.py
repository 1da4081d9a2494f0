"""A connection whose camera feeds a session, and the loopback, which sends the results back on the same connection.

WHIP (whip.py) and masks on a data channel (mask_channel.py) are the other two: they differ in what becomes of results.
"""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from functools import partial
from typing import Any, Generic, TypeVar

from aiortc import MediaStreamTrack, RTCDataChannel
from aiortc.mediastreams import MediaStreamError

from portrait.errors import BadPicture, PortraitError, SegmentationHangs, UnsupportedOffer
from portrait.sessions.newest_slot import Closed
from portrait.sessions.session import Session
from portrait.transports.webrtc.aiortc_patches.receiver import Bandwidth, receive_undecoded
from portrait.transports.webrtc.aiortc_patches.video_codecs import EncodedPicture, PictureEncoder, hand_over
from portrait.transports.webrtc.backlog import Backlog, CodedPictures
from portrait.transports.webrtc.connection import Connection, directions_left, running
from portrait.transports.webrtc.event_channel import EventChannel

logger = logging.getLogger(__name__)

W = TypeVar("W")

UNDECODABLE_SECONDS = 8.0
"""A session of which no picture can be decoded for this long ends. Some senders take several seconds to their next
keyframe."""

REFUSED_SECONDS = 1.0
"""After this long without a picture that is not refused, a client is told. A lost packet may cost a picture or two."""

TELL_SECONDS = 2.0
"""How often a client is told at most that its frames are refused."""

CHECK_SECONDS = 1.0


class Uplink(ABC, Generic[W]):
    """A connection whose camera feeds a session. It ends with the session; `run` is its whole life."""

    def __init__(self, session: Session[CodedPictures, W], idle_seconds: float) -> None:
        self.session, self._idle_seconds = session, idle_seconds
        self.connection = Connection(session.end)
        self.backlog: Backlog | None = None
        self._bandwidth: Bandwidth | None = None
        self._refused_since: float | None = None
        self._told_at = 0.0
        self._events = EventChannel(session.count_event)
        self.connection.pc.on("datachannel", self.take_channel)

    async def answer(self, offer: str) -> str:
        """The SDP answer to an offer.

        Raises:
            BadOffer: not SDP, not the media this connection is for, or no codec in common.
            NoMediaPort: every UDP port for media is taken.
        """
        return await self.connection.answer(offer, self.direct)

    @abstractmethod
    def direct(self, transceivers: list[Any]) -> None:
        """Set the direction of each media section, and pass exactly one to `take_camera`.

        Raises:
            UnsupportedOffer: the sections are not what this connection is for.
        """

    def take_camera(self, transceiver: Any) -> None:
        """Use this section's track as the camera."""
        ended = partial(self.session.end, "the camera's track ended")
        self.backlog, self._bandwidth = receive_undecoded(transceiver, ended)

    def take_channel(self, channel: RTCDataChannel) -> None:
        """Keep the channel for events that the client has opened; close any other."""
        self._events.take(channel)

    async def run(self, *work: Coroutine[Any, Any, None]) -> None:
        """Carry frames, with `work` beside it, until the session is ended or the client goes away."""
        parts = (self.connection.watch(), self._watch_camera(), self._send_goaway(), *work)
        async with running(self.session.end, "webrtc-uplink", *parts):
            reason = await self.session.wait_ended()
            self._events.send(closed=reason)
            await asyncio.sleep(0)  # the channel sends in a task of its own

    async def newest(self) -> CodedPictures:
        """Wait for the newest picture and all it builds on; those it replaces are counted as dropped.

        Raises:
            Closed: the connection is being closed.
        """
        assert self.backlog is not None
        await self.session.pace()
        coded = await self.backlog.take()
        if lost := self.backlog.take_lost():
            self.session.drop(lost, "backlog_cleared")
        if replaced := len(coded.pictures) - 1:
            self.session.drop(replaced)
        return coded

    async def result(self, coded: CodedPictures) -> W | None:
        """The session's result for the newest picture; None when it is refused.

        Raises:
            Exception: it could not be composed; the session has been ended with the reason.
        """
        assert self._bandwidth is not None
        try:
            wire = (await self.session.process(coded, coded.arrived)).wire
        except BadPicture as error:  # counted by the session
            self._tell_refusal(error)
            return None
        except SegmentationHangs:  # the session has been ended with the reason
            raise
        except Exception as error:
            self.session.end(f"a frame could not be composed: {error}")
            raise
        if self._refused_since is not None and self._told_at > self._refused_since:
            self._events.send(refused=None)
        self._refused_since = None
        self._bandwidth.allow(self.session.load.width * self.session.load.height)
        self._events.tell_presence(self.session.presence)
        return wire

    async def skip(self, coded: CodedPictures, reason: str) -> None:
        """Decode the newest picture, since later ones build on it, and drop it."""
        await self.session.skip(coded, coded.arrived, reason)

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        if self.backlog is not None:
            self.backlog.close()
        await self.connection.close()

    def _tell_refusal(self, error: BadPicture) -> None:
        now = time.monotonic()
        if self._refused_since is None:
            self._refused_since = now
        if now - self._refused_since < REFUSED_SECONDS:
            return
        if now - self._told_at >= TELL_SECONDS and self._events.send(refused=str(error)):
            self._told_at = now

    async def _send_goaway(self) -> None:
        """Tell the client that the session will be ended, while it still runs."""
        seconds = await self.session.wait_leaving()
        await self._events.opened.wait()
        self._events.send(goaway=seconds)

    async def _watch_camera(self) -> None:
        """End the session when no picture arrives any more, or none of those that arrive can be decoded."""
        await self.connection.connected.wait()
        assert self.backlog is not None
        self.backlog.last_arrival = time.monotonic()
        while (silent := time.monotonic() - self.backlog.last_arrival) < self._idle_seconds:
            decoding, now = self.backlog.decoding, time.monotonic()
            since = decoding.failing_since
            if since is not None and decoding.failed_at - since >= UNDECODABLE_SECONDS and now - decoding.failed_at < 2:
                self.session.end(f"no picture could be decoded for {UNDECODABLE_SECONDS:g} s: {decoding.error}")
            await asyncio.sleep(min(CHECK_SECONDS, self._idle_seconds - silent))
        self.session.end(f"no frame for {self._idle_seconds:g} s")


class Loopback(Uplink[EncodedPicture]):
    """A connection that gets back what becomes of its camera."""

    def __init__(
        self, session: Session[CodedPictures, EncodedPicture], idle_seconds: float, encoder: PictureEncoder
    ) -> None:
        super().__init__(session, idle_seconds)
        self._encoder = encoder

    def direct(self, transceivers: list[Any]) -> None:
        """Answer the first video section and decline everything else: what is accepted must be read."""
        for transceiver in transceivers:
            if transceiver.kind == "video" and not self.backlog and directions_left(transceiver) == {"send", "recv"}:
                self.take_camera(transceiver)
                transceiver.sender.replaceTrack(ResultTrack(self))
                hand_over(transceiver, self._encoder)
                transceiver.direction = "sendrecv"
            else:
                transceiver.direction = "inactive"
        if self.backlog is None:
            raise UnsupportedOffer("sdp", "got an offer without a video that goes both ways, expected one sendrecv")


class ResultTrack(MediaStreamTrack):
    """The outgoing video: takes the newest camera frame through the session whenever the sender asks for one."""

    kind = "video"

    def __init__(self, uplink: Uplink[EncodedPicture]) -> None:
        super().__init__()
        self._uplink = uplink

    async def recv(self) -> EncodedPicture:  # type: ignore[override]  # its sender's encoder packs it
        """The next result, with the time of its input.

        Raises:
            MediaStreamError: the camera's track has ended, or a frame could not be composed.
        """
        while True:
            try:
                result = await self._uplink.result(await self._uplink.newest())
            except Closed:
                self.stop()
                raise MediaStreamError from None
            except PortraitError as error:  # the session has been ended with the reason
                raise MediaStreamError from error
            except Exception as error:
                # aiortc would end the track without a word.
                logger.exception("a frame could not be composed")
                raise MediaStreamError from error
            if result is not None:
                return result
