"""WHIP (RFC 9725): a camera up, and its results to the viewers of its stream."""

from typing import Any, TypeAlias

from portrait.errors import UnsupportedOffer
from portrait.image.frame import Frame
from portrait.sessions.broadcasts import Broadcast
from portrait.sessions.newest_slot import Closed
from portrait.sessions.session import Session
from portrait.transports.webrtc.aiortc_patches.sound import codec_of, note_reports, receive_sound
from portrait.transports.webrtc.backlog import CodedPictures
from portrait.transports.webrtc.connection import directions_left
from portrait.transports.webrtc.uplink import Uplink

Outputs: TypeAlias = dict[str, Frame]

SOUNDS = ("audio/opus", "audio/pcmu", "audio/pcma", "audio/g722")
"""The codecs of sound that are passed on, the first that is offered; viewers' browsers have them all."""


class Publisher(Uplink[Outputs]):
    """A connection that only sends, and whose results are broadcast."""

    def __init__(self, session: Session[CodedPictures, Outputs], broadcast: Broadcast, idle_seconds: float) -> None:
        super().__init__(session, idle_seconds)
        self._broadcast = broadcast

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
        """Take every newest frame through the session to the viewers; without viewers only decode it."""
        while True:
            try:
                coded = await self.newest()
            except Closed:
                return
            if not self._broadcast.wanted:
                await self.skip(coded, "no_viewer")
            elif (outputs := await self.result(coded)) is not None:
                self._broadcast.show(outputs)
