"""WHIP (RFC 9725): a camera up; what becomes of it goes to the stream's viewers."""

from typing import Any, TypeAlias

import av

from portrait.errors import UnsupportedOffer
from portrait.sessions.newest_slot import Closed
from portrait.sessions.session import Session
from portrait.transports.webrtc.aiortc_patches.video_decoders import Coded
from portrait.transports.webrtc.broadcasts import Stream
from portrait.transports.webrtc.connection import open_ways
from portrait.transports.webrtc.uplink import Uplink

Pictures: TypeAlias = dict[str, av.VideoFrame]


class Publisher(Uplink[Pictures]):
    """A connection that only sends, bound to a stream."""

    def __init__(self, session: Session[Coded, Pictures], stream: Stream, idle_seconds: float) -> None:
        super().__init__(session, idle_seconds)
        self._stream = stream

    def direct(self, transceivers: list[Any]) -> None:
        """Answer the one video track with recvonly; a second one is refused, sound declined."""
        for transceiver in transceivers:
            if transceiver.kind != "video" or "recv" not in open_ways(transceiver):
                transceiver.direction = "inactive"
                continue
            if self.camera is not None:
                raise UnsupportedOffer("sdp", "more than one video came; expected one (RFC 9725 section 4.4)")
            self.take_camera(transceiver)
            transceiver.direction = "recvonly"
        if self.camera is None:
            raise UnsupportedOffer("sdp", "the offer sends no video; expected one video section that is sendonly")

    async def show(self) -> None:
        """Every newest frame through the session and to the viewers; without viewers a frame is decoded and no more."""
        while True:
            try:
                arrived = await self.newest()
            except Closed:
                return
            if not self._stream.wanted:
                await self.skip(arrived, "no_viewer")
            elif (pictures := await self.result(arrived)) is not None:
                self._stream.show(pictures)
