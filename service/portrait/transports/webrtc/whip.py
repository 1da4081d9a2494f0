"""WHIP (RFC 9725): a camera up, and its results to the viewers of its stream."""

import time
from typing import Any, TypeAlias

from portrait.errors import UnsupportedOffer
from portrait.image.frame import Frame
from portrait.sessions.broadcasts import Broadcast
from portrait.sessions.newest_slot import Closed
from portrait.sessions.presence_feed import PresenceFeed
from portrait.sessions.session import Session
from portrait.transports.webrtc.aiortc_patches.sound import codec_of, note_reports, receive_sound
from portrait.transports.webrtc.backlog import CodedPictures
from portrait.transports.webrtc.connection import directions_left
from portrait.transports.webrtc.uplink import Uplink

Outputs: TypeAlias = dict[str, Frame]

SOUNDS = ("audio/opus", "audio/pcmu", "audio/pcma", "audio/g722")
"""The codecs of sound that are passed on, the first that is offered; viewers' browsers have them all."""

PRESENCE_SECONDS = 0.25
"""How often a frame is segmented for listeners to presence alone: so often that its mask is the next one's prior."""


class Publisher(Uplink[Outputs]):
    """A connection that only sends, and whose results are broadcast; its presence is told to listeners of `feed`."""

    def __init__(
        self,
        session: Session[CodedPictures, Outputs],
        broadcast: Broadcast,
        idle_seconds: float,
        feed: PresenceFeed,
    ) -> None:
        super().__init__(session, idle_seconds)
        self._broadcast, self._feed = broadcast, feed
        self._presence_due = 0.0

    def direct(self, transceivers: list[Any]) -> None:
        """Answer the one video section with recvonly, and the first one of sound; refuse a second video."""
        sound = self._broadcast.sound
        for transceiver in transceivers:
            if transceiver.kind == "audio" and not sound.codec and "recv" in directions_left(transceiver):
                codec = next(filter(None, (codec_of(transceiver, name) for name in SOUNDS)), None)
                if codec is not None:
                    receive_sound(transceiver, sound, codec)
                    note_reports(transceiver, sound)
                    transceiver.direction = "recvonly"
                    continue
            if transceiver.kind != "video" or "recv" not in directions_left(transceiver):
                transceiver.direction = "inactive"
                continue
            if self.backlog is not None:
                raise UnsupportedOffer("sdp", "got more than one video, expected one (RFC 9725 section 4.4)")
            self.take_camera(transceiver)
            note_reports(transceiver, sound)
            transceiver.direction = "recvonly"
        if self.backlog is None:
            raise UnsupportedOffer("sdp", "got an offer that sends no video, expected one video section, sendonly")

    async def show(self) -> None:
        """Take every newest frame through the session to the viewers.

        Without viewers it is only decoded, but for a few frames a second where presence is listened to.
        """
        while True:
            try:
                coded = await self.newest()
            except Closed:
                return
            if not self._broadcast.wanted and not self._presence_wanted():
                await self.skip(coded, "no_viewer")
            elif (outputs := await self.result(coded)) is not None:
                self._broadcast.show(outputs, self.session.presence)

    def _presence_wanted(self) -> bool:
        """Whether this frame is to be segmented, though nobody watches."""
        now = time.monotonic()
        if now < self._presence_due or not self._feed.wanted(self._broadcast.name):
            return False
        self._presence_due = now + PRESENCE_SECONDS
        return True
