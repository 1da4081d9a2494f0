"""The loopback: camera up and result down in one connection, by a session of its own."""

import logging
from typing import Any

from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from portrait.errors import PortraitError, UnsupportedOffer
from portrait.sessions.newest_slot import Closed
from portrait.sessions.session import Session
from portrait.transports.webrtc.aiortc_patches import TrackEncoder
from portrait.transports.webrtc.aiortc_patches.video_decoders import Coded
from portrait.transports.webrtc.aiortc_patches.video_encoders import Encoded
from portrait.transports.webrtc.connection import open_ways
from portrait.transports.webrtc.uplink import Uplink

logger = logging.getLogger(__name__)


class ResultTrack(MediaStreamTrack):
    """The outgoing video: pulls the newest camera frame through the session whenever the sender wants one."""

    kind = "video"

    def __init__(self, uplink: Uplink[Encoded]) -> None:
        super().__init__()
        self._uplink = uplink

    async def recv(self) -> Encoded:  # type: ignore[override]  # a sender's `pack` takes it
        """The next result, at the time of its input.

        Raises:
            MediaStreamError: the camera's track has ended, or a frame could not be composed.
        """
        while True:
            try:
                result = await self._uplink.result(await self._uplink.newest())
            except Closed:
                self.stop()
                raise MediaStreamError from None
            except PortraitError as error:  # the session has ended, and said why
                raise MediaStreamError from error
            except Exception as error:
                # aiortc would end the track and say nothing.
                logger.exception("a frame could not be composed")
                raise MediaStreamError from error
            if result is not None:
                return result


class Peer(Uplink[Encoded]):
    """A connection that gets back what it sends."""

    def __init__(self, session: Session[Coded, Encoded], idle_seconds: float, encoder: TrackEncoder) -> None:
        super().__init__(session, idle_seconds)
        self._encoder = encoder

    def direct(self, transceivers: list[Any]) -> None:
        """Answer the first video track and decline everything else: whatever is accepted must be drained."""
        for transceiver in transceivers:
            if transceiver.kind == "video" and self.camera is None and open_ways(transceiver) == {"send", "recv"}:
                self.take_camera(transceiver)
                transceiver.sender.replaceTrack(ResultTrack(self))
                self._encoder.take_over(transceiver)
                transceiver.direction = "sendrecv"
            else:
                transceiver.direction = "inactive"
        if self.camera is None:
            raise UnsupportedOffer("sdp", "the offer sends no video, or takes none; expected one that is sendrecv")
