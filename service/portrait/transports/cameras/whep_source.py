"""WhepSource: a camera that is another server's WHEP endpoint, such as MediaMTX's."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from portrait.core.compositors import Options
from portrait.image.frame import Frame, Timestamp
from portrait.sessions.broadcasts import Broadcast
from portrait.transports.cameras.addresses import Address
from portrait.transports.cameras.packets import TIME_BASE, CameraFailed, MediaClock
from portrait.transports.cameras.sources import Found, Taken
from portrait.transports.cameras.whip_client import leave, open_http, post_offer, say
from portrait.transports.webrtc.aiortc_patches.receiver import receive_undecoded
from portrait.transports.webrtc.backlog import Backlog, CodedPictures
from portrait.transports.webrtc.codec import BroadcastCodec
from portrait.transports.webrtc.connection import Connection


class WhepSource:
    """A connection to a WHEP endpoint (draft-ietf-wish-whep): one video down, undecoded until a session takes it."""

    def __init__(self, name: str, address: Address, times: MediaClock, broadcast: Broadcast) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = loop.create_future()
        self._backlog: asyncio.Future[Backlog] = loop.create_future()
        self._found: asyncio.Future[Found] = loop.create_future()
        self._address, self._times, self._broadcast = address, times, broadcast
        self._task = asyncio.create_task(self._run(), name=f"camera-{name}-whep")

    async def found(self) -> Found:
        """Wait for its video."""
        return await asyncio.shield(self._found)

    def open_codec(self, max_pixels: int) -> BroadcastCodec:
        """The codec of a session for its pictures."""
        self._times.reconnected()
        return TimedCodec(self._times, max_pixels, lambda: self._broadcast.wanted)

    async def take(self) -> Taken:
        """Wait for a picture, and take all there are."""
        backlog = await asyncio.shield(self._backlog)
        coded = await backlog.take()
        return Taken(coded, coded.arrived, len(coded.pictures) - 1, backlog.take_lost())

    async def close(self) -> None:
        """End the connection."""
        for future in (self.lost, self._found, self._backlog):  # first: the end of the task fails what is not done
            future.cancel()
            if not future.cancelled():
                future.exception()  # it has been told, or is of no interest any more
        self._task.cancel()
        await asyncio.wait({self._task})  # which a second cancellation does not reach: it closes sockets

    async def _run(self) -> None:
        connection = Connection(lambda reason: self._fail(f"the connection ended: {reason}"))
        resource = None
        http = open_http()
        try:
            transceiver = connection.pc.addTransceiver("video", direction="recvonly")
            resource = await post_offer(connection, http, self._address)
            if not transceiver._codecs:
                raise CameraFailed("the video has a codec that cannot be decoded")
            # The connection is made in a task of its own: no packet has come yet.
            backlog, _ = receive_undecoded(transceiver, lambda: self._fail("the camera ended the stream"))
            self._backlog.set_result(backlog)
            self._found.set_result(Found(transceiver._codecs[0].name.lower()))
            await connection.watch()
        except Exception as error:
            self._fail(say(error))
        finally:
            if self._backlog.done() and not self._backlog.cancelled():
                self._backlog.result().close()
            await asyncio.shield(leave(connection, http, self._address, resource))

    def _fail(self, words: str) -> None:
        for future in (self._found, self.lost):
            if not future.done():
                future.set_exception(CameraFailed(words))


class TimedCodec(BroadcastCodec):
    """Gives pictures the times of a line that never jumps, over all connections."""

    def __init__(self, times: MediaClock, max_pixels: int, wanted: Callable[[], frozenset[str]]) -> None:
        super().__init__(max_pixels, wanted)
        self._times = times

    def decode(self, picture: CodedPictures, arrived: float, options: Options) -> Frame:
        """Decode all pictures and return the newest, at its time on the line."""
        frame = super().decode(picture, arrived, options)
        moved = self._times.moved(frame.timestamp.ticks * frame.timestamp.time_base)
        return replace(frame, timestamp=Timestamp(round(moved / TIME_BASE), TIME_BASE))
