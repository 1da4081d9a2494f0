"""WHEP (draft-ietf-wish-whep): one output of a stream down, to one viewer."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from portrait.admission.capacity import StreamLoad
from portrait.errors import UnsupportedOffer
from portrait.image.frame import Frame
from portrait.sessions.broadcasts import Broadcast
from portrait.sessions.newest_slot import Closed, NewestSlot
from portrait.sessions.sound import Listener
from portrait.transports.webrtc.aiortc_patches.sound import codec_of, report_in_step, send_sound
from portrait.transports.webrtc.aiortc_patches.video_codecs import EncodedPicture, PictureEncoder, hand_over
from portrait.transports.webrtc.connection import Connection, directions_left, running

logger = logging.getLogger(__name__)


class ViewerTrack(MediaStreamTrack):
    """The newest frame of a slot whenever the sender asks for one, encoded for its viewer alone."""

    kind = "video"

    def __init__(
        self,
        slot: NewestSlot[Frame],
        encoder: PictureEncoder,
        executor: Executor,
        load: StreamLoad,
        end: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._slot, self._encoder, self._executor = slot, encoder, executor
        self._load, self._end = load, end

    async def recv(self) -> EncodedPicture:  # type: ignore[override]  # its sender's encoder packs it
        """The next picture, with the time of its frame.

        Raises:
            MediaStreamError: the stream has ended, or a picture could not be encoded; the viewer has been ended.
        """
        try:
            frame = await self._slot.get()
            loop = asyncio.get_running_loop()
            encoded = await loop.run_in_executor(self._executor, self._encoder.encode, frame)
            self._load.add_result(time.monotonic(), frame.arrived, (frame.width, frame.height))
            return encoded
        except Closed:
            self.stop()
            raise MediaStreamError from None
        except Exception as error:
            # aiortc would end the track, and leave the viewer connected to nothing.
            logger.exception("a picture could not be encoded")
            self._end(f"a picture could not be encoded: {error}")
            raise MediaStreamError from None


class Viewer:
    """A connection that shows one output of a broadcast; `run` is its whole life."""

    def __init__(self, name: str, broadcast: Broadcast, output: str) -> None:
        self.id = name
        self.broadcast, self.output = broadcast, output
        self._encoder = PictureEncoder()
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.connection = Connection(self.end)

    def end(self, reason: str) -> None:
        """Make `run` return the reason. Idempotent: the first reason stands."""
        if not self._ended.done():
            self._ended.set_result(reason)

    async def answer(
        self, offer: str, slot: NewestSlot[Frame], executor: Executor, load: StreamLoad, listener: Listener
    ) -> str:
        """The SDP answer to an offer: it sends the frames of `slot`, encoded by `executor`, and the stream's sound.

        The sound comes from `listener`, and is sent where the offer takes it in the codec it came in. `load` is what
        admission charges for the viewer.

        Raises:
            BadOffer: not SDP, no video to receive, or no codec in common.
            NoMediaPort: every UDP port for media is taken.
        """
        sound = self.broadcast.sound

        def direct(transceivers: list[Any]) -> None:
            found = heard = False
            for transceiver in transceivers:
                if transceiver.kind == "video" and "send" in directions_left(transceiver) and not found:
                    found = True
                    transceiver.sender.replaceTrack(ViewerTrack(slot, self._encoder, executor, load, self.end))
                    hand_over(transceiver, self._encoder)
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
            if not found:
                raise UnsupportedOffer("sdp", "got an offer that takes no video, expected one video section, recvonly")

        return await self.connection.answer(offer, direct)

    async def run(self) -> str:
        """Show frames until the stream ends, the viewer leaves or `end` is called. Returns the reason."""
        async with running(self.end, "whep-viewer", self.connection.watch(while_sending=True), self._watch_broadcast()):
            return await self._ended

    async def close(self) -> None:
        """Close the connection and free the encoder. Idempotent."""
        await self.connection.close()
        self._encoder.close()

    async def _watch_broadcast(self) -> None:
        await self.broadcast.ended.wait()
        self.end("the stream ended")
