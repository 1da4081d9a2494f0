"""WHEP (draft-ietf-wish-whep): one output of a stream down, to one viewer."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from aiortc import MediaStreamTrack
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from portrait.admission.capacity import StreamLoad
from portrait.errors import OutOfCpu, UnsupportedOffer
from portrait.logs import log_event
from portrait.sessions.broadcasts import Broadcast
from portrait.sessions.sound import Listener
from portrait.transports.webrtc.aiortc_patches.sound import codec_of, report_in_step, send_sound
from portrait.transports.webrtc.aiortc_patches.video_codecs import EncodedPicture, negotiated_codec, send_encoded
from portrait.transports.webrtc.connection import Connection, directions_left, running
from portrait.transports.webrtc.encodings import MUCH_LESS, Encoding, Encodings, Subscription
from portrait.transports.webrtc.event_channel import EventChannel

logger = logging.getLogger(__name__)

LOST, HARDLY_LOST = 0.1, 0.02
"""Shares of the packets that a viewer reports as lost: too many for the encoding that all share, and few enough."""

BAD_SECONDS, GOOD_SECONDS, MOST_GOOD_SECONDS = 2.0, 10.0, 160.0
"""How long a viewer's line must carry too little before it gets an encoding of its own, and enough before it shares the
others' again: longer every time, since each costs the others a keyframe."""

CHECK_SECONDS = 1.0


class ViewerTrack(MediaStreamTrack):
    """The pictures of a viewer's subscription, as its sender asks for them."""

    kind = "video"

    def __init__(self, subscription: Subscription, load: StreamLoad, shown: Callable[[], None]) -> None:
        """`shown` is called for every picture."""
        super().__init__()
        self._subscription, self._load, self._shown = subscription, load, shown

    async def recv(self) -> EncodedPicture:  # type: ignore[override]  # the subscription packs it
        """The next picture, with the time of its frame."""
        picture = await self._subscription.get()
        self._load.add_result(time.monotonic(), picture.arrived, picture.size)
        self._shown()
        return picture


class Viewer:
    """A connection that shows one output of a broadcast; `run` is its whole life.

    Events of presence in the stream are told on a data channel, if the client opens one, and counted by `count_event`.
    """

    def __init__(
        self,
        name: str,
        broadcast: Broadcast,
        output: str,
        encodings: Encodings,
        count_event: Callable[[str], None],
    ) -> None:
        self.id = name
        self.broadcast, self.output = broadcast, output
        self._encodings = encodings
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._subscription = Subscription(self._ended)
        self._asked = 0
        """Keyframes that its receiver had asked for at the last check."""
        self._transceiver: Any = None
        self._events = EventChannel(count_event)
        self.connection = Connection(self.end)
        self.connection.pc.on("datachannel", self._events.take)

    def end(self, reason: str) -> None:
        """Make `run` return the reason. Idempotent: the first reason stands."""
        self._subscription.end(reason)

    async def answer(self, offer: str, load: StreamLoad, listener: Listener) -> str:
        """The SDP answer to an offer: it sends the output of the broadcast, and the stream's sound.

        The sound comes from `listener`, and is sent where the offer takes it in the codec it came in. `load` is what
        admission charges for the viewer.

        Raises:
            BadOffer: not SDP, no video to receive, or no codec in common.
            NoMediaPort: every UDP port for media is taken.
        """
        sound = self.broadcast.sound

        def direct(transceivers: list[Any]) -> None:
            heard = False
            for transceiver in transceivers:
                if transceiver.kind == "video" and "send" in directions_left(transceiver) and not self._transceiver:
                    self._transceiver = transceiver
                    transceiver.sender.replaceTrack(ViewerTrack(self._subscription, load, self._tell_presence))
                    send_encoded(transceiver, self._subscription, self._subscription.want_keyframe)
                    report_in_step(transceiver, sound)
                    transceiver.direction = "sendonly"
                elif (
                    transceiver.kind == "audio"
                    and "send" in directions_left(transceiver)
                    and not heard
                    and (codec := codec_of(transceiver, sound.codec)) is not None
                ):
                    heard = True
                    send_sound(transceiver, listener, codec)
                    report_in_step(transceiver, sound)
                    transceiver.direction = "sendonly"
                else:
                    transceiver.direction = "inactive"
            if not self._transceiver:
                raise UnsupportedOffer("sdp", "got an offer that takes no video, expected one video section, recvonly")

        return await self.connection.answer(offer, direct)

    async def run(self) -> str:
        """Show frames until the stream ends, the viewer leaves or `end` is called. Returns the reason."""
        parts = self.connection.watch(while_sending=True), self._watch_broadcast(), self._show()
        async with running(self.end, "whep-viewer", *parts):
            reason = await self._ended
            self._events.send(closed=reason)
            await asyncio.sleep(0)  # the channel sends in a task of its own
            return reason

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        await self.connection.close()
        self._transceiver = None

    async def _show(self) -> None:
        """Share the others' encoding while the viewer's line carries it, and have one of its own while it does not."""
        await self.connection.connected.wait()
        codec, good_seconds = negotiated_codec(self._transceiver), GOOD_SECONDS
        while True:
            async with self._encodings.share(self.output, codec, self._subscription) as shared:
                await self._wait(BAD_SECONDS, partial(self._carries_less, shared))
                while not self._encodings.has_room(self.output):  # it stays: leaving costs a keyframe for all
                    await asyncio.sleep(GOOD_SECONDS)
                    await self._wait(BAD_SECONDS, partial(self._carries_less, shared))
                rate = shared.rate
            await self._show_apart(codec, round(MUCH_LESS * rate), good_seconds)
            good_seconds = min(2 * good_seconds, MOST_GOOD_SECONDS)

    async def _show_apart(self, codec: RTCRtpCodecParameters, most: int, seconds: float) -> None:
        """Have an encoding of at most `most` bits per second until the line has carried that for so long.

        Whether it carries more shows only when more is sent: receivers estimate little above what they get.
        """
        with suppress(OutOfCpu):  # another worker has taken the room meanwhile
            async with self._encodings.open_own(self.output, codec, self._subscription, most):
                log_event(logger, logging.INFO, "viewer encoded apart", viewer=self.id[:6], rate=most)
                await self._wait(seconds, partial(self._carries, most))

    async def _wait(self, seconds: float, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait until the condition has held for so long."""
        held = 0.0
        while held < seconds:
            await asyncio.sleep(CHECK_SECONDS)
            held = held + CHECK_SECONDS if await condition() else 0.0

    async def _carries_less(self, shared: Encoding) -> bool:
        """Whether the line carries less than the encoding that it shares with others."""
        asked, self._asked = self._subscription.keyframes_wanted - self._asked, self._subscription.keyframes_wanted
        if len(shared) < 2:
            return False
        is_slow = 0 < self._subscription.settled_estimate(time.monotonic()) < MUCH_LESS * shared.rate
        return is_slow or asked > 1 or await self._lost() > LOST

    async def _carries(self, rate: int) -> bool:
        """Whether the line carries this many bits per second."""
        estimate = self._subscription.estimate
        return (not estimate or estimate >= rate) and await self._lost() < HARDLY_LOST

    async def _lost(self) -> float:
        """Share of the packets that the viewer's last report calls lost."""
        statistics = await self._transceiver.sender.getStats()
        reports = [report for report in statistics.values() if report.type == "remote-inbound-rtp"]
        return reports[-1].fractionLost / 256 if reports else 0.0

    def _tell_presence(self) -> None:
        self._events.tell_presence(self.broadcast.presence)

    async def _watch_broadcast(self) -> None:
        await self.broadcast.ended.wait()
        self.end("the stream ended")
