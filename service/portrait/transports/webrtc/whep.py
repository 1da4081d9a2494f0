"""WHEP (draft-ietf-wish-whep): a stream's result down, to one viewer."""

import asyncio
from typing import Any

import av
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from portrait.errors import UnsupportedOffer
from portrait.sessions.newest_slot import Closed, NewestSlot
from portrait.transports.webrtc.broadcasts import Stream
from portrait.transports.webrtc.connection import Connection, beside, open_ways


class SlotTrack(MediaStreamTrack):
    """The newest picture of a slot whenever the sender wants one."""

    kind = "video"

    def __init__(self, slot: NewestSlot[av.VideoFrame]) -> None:
        super().__init__()
        self._slot = slot

    async def recv(self) -> av.VideoFrame:
        """The next picture, at the time of its frame.

        Raises:
            MediaStreamError: the stream has ended.
        """
        try:
            return await self._slot.get()
        except Closed:
            self.stop()
            raise MediaStreamError from None


class Viewer:
    """A connection that shows one output of a stream; `run` is the whole life."""

    def __init__(self, name: str, stream: Stream, output: str) -> None:
        self.id = name
        self.stream, self.output = stream, output
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.connection = Connection(self.end)

    def end(self, reason: str) -> None:
        """Ask `run` to come to its end. Idempotent: the first reason stands."""
        if not self._ended.done():
            self._ended.set_result(reason)

    async def answer(self, offer: str, slot: NewestSlot[av.VideoFrame]) -> str:
        """The SDP answer to an offer; it sends the pictures of `slot` and nothing else.

        Raises:
            BadOffer: not SDP, no video to send, or nothing in common.
            NoMediaPort: every UDP port for media is taken.
        """

        def give_video(transceivers: list[Any]) -> None:
            track: MediaStreamTrack | None = None
            for transceiver in transceivers:
                if transceiver.kind == "video" and "send" in open_ways(transceiver) and track is None:
                    track = SlotTrack(slot)
                    transceiver.sender.replaceTrack(track)
                    transceiver.direction = "sendonly"
                else:
                    transceiver.direction = "inactive"
            if track is None:
                raise UnsupportedOffer("sdp", "the offer wants no video; expected one video section that is recvonly")

        return await self.connection.answer(offer, give_video)

    async def run(self) -> str:
        """Show pictures until the stream ends, the viewer leaves or is told to; why."""
        async with beside(self.end, "whep-viewer", self.connection.watch(while_sending=True), self._watch_stream()):
            return await self._ended

    async def _watch_stream(self) -> None:
        await self.stream.ended.wait()
        self.end("the stream ended")
