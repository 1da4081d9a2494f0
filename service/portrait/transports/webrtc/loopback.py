"""The loopback: camera up and result down in one connection, with a session of its own."""

import logging
from typing import Any

from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from portrait.errors import PortraitError, UnsupportedOffer
from portrait.sessions.newest_slot import Closed
from portrait.sessions.session import Session
from portrait.transports.webrtc.aiortc_patches.encoder_handover import hand_over
from portrait.transports.webrtc.aiortc_patches.video_encoders import EncodedPicture, PictureEncoder
from portrait.transports.webrtc.backlog import CodedPictures
from portrait.transports.webrtc.connection import directions_left
from portrait.transports.webrtc.uplink import Uplink

logger = logging.getLogger(__name__)


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
