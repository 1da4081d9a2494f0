"""Encodings: an output of a stream is encoded once for all its viewers who take the same codec.

A viewer whose line carries much less than the others' gets an encoding of its own, at a lower rate, for as long as that
lasts and admission allows.
"""

import asyncio
import logging
import time
from asyncio import Queue, QueueEmpty, QueueFull
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from portrait.admission.capacity import StreamLoad
from portrait.sessions.broadcasts import Broadcast
from portrait.sessions.newest_slot import Closed
from portrait.sessions.registry import Sessions
from portrait.transports.webrtc.aiortc_patches.video_codecs import EncodedPicture, PictureEncoder

logger = logging.getLogger(__name__)

KEYFRAME_SECONDS = 0.5
"""All viewers of an encoding get one keyframe within this time, however many of them ask for one."""

MOST_WAITING = 8
"""Pictures that wait to be sent to a viewer. Past that they are dropped, and it continues with a keyframe."""

SETTLING_SECONDS = 3.0
"""A viewer's first estimates of its bandwidth, which rise from nothing, do not count beside those of others."""

MUCH_LESS = 0.5
"""A viewer that can take less than this share of what the fastest can does not slow the others down."""


class Subscription:
    """One viewer's part of an encoding: the pictures it has not been sent yet, and what its line carries.

    It takes the place of an encoder in aiortc's sender, which sets `target_bitrate` to the receiver's estimate and
    lets it pack what `get` has returned.
    """

    def __init__(self, ended: asyncio.Future[str]) -> None:
        """`ended` ends the viewer when it is set to the reason."""
        self._ended = ended
        self.joined = 0.0
        """When it joined its encoding, in seconds of the monotonic clock."""
        self.estimate = 0
        """Bits per second that the receiver believes it can take; 0: it has not said yet."""
        self.wants_keyframe = True
        """Whether it can decode nothing before the next keyframe."""
        self.keyframes_wanted = 0
        """How often the receiver has asked for one."""
        self._pictures: Queue[EncodedPicture] = Queue(MOST_WAITING)

    @property
    def target_bitrate(self) -> int:
        """The estimate."""
        return self.estimate

    @target_bitrate.setter
    def target_bitrate(self, bitrate: int) -> None:
        self.estimate = bitrate

    def settled_estimate(self, now: float) -> int:
        """The estimate; 0 until it has joined its encoding long enough for it to count."""
        return self.estimate if now - self.joined > SETTLING_SECONDS else 0

    def end(self, reason: str) -> None:
        """End the viewer. Idempotent: the first reason stands."""
        if not self._ended.done():
            self._ended.set_result(reason)

    @staticmethod
    def pack(picture: EncodedPicture) -> tuple[list[bytes], int]:
        """RTP payloads and timestamp of a picture."""
        return picture.payloads, picture.timestamp

    def want_keyframe(self) -> None:
        """Continue with a keyframe: the receiver has lost what it needs to decode anything else."""
        self.keyframes_wanted += 1
        self.wants_keyframe = True

    def put(self, picture: EncodedPicture) -> None:
        """Hand over the next picture of the encoding. Those before the first keyframe are of no use and are dropped."""
        if picture.is_keyframe:
            self.wants_keyframe = False
        elif self.wants_keyframe:
            return
        try:
            self._pictures.put_nowait(picture)
        except QueueFull:
            self.clear()

    def clear(self) -> None:
        """Drop what waits to be sent: the next picture is a keyframe."""
        self.wants_keyframe = True
        with suppress(QueueEmpty):
            while True:
                self._pictures.get_nowait()

    async def get(self) -> EncodedPicture:
        """Wait for the next picture to send."""
        return await self._pictures.get()


class Encoding:
    """Encodes one output of a broadcast for its subscriptions, as long as it has any."""

    def __init__(
        self, codec: RTCRtpCodecParameters, executor: Executor, load: StreamLoad, most: int | None = None
    ) -> None:
        """`load` is what admission charges for it; `most` is the limit of its rate, None the codec's."""
        self._encoder, self._executor, self._load = PictureEncoder(), executor, load
        self._encoder.open(codec)
        self.highest_rate = self._encoder.highest_rate if most is None else most
        """Bits per second, at most, whatever the viewers can take."""
        if most is not None:
            self._encoder.rate = most
        self.is_over = False
        """Whether it makes no more pictures."""
        self._subscriptions: set[Subscription] = set()
        self._keyframe_at = 0.0

    @property
    def rate(self) -> int:
        """Bits per second that it encodes at."""
        return self._encoder.rate

    def __len__(self) -> int:
        return len(self._subscriptions)

    def add(self, subscription: Subscription) -> None:
        """Send pictures to a subscription from the next keyframe on, which is made soon."""
        subscription.joined = time.monotonic()
        subscription.clear()
        self._subscriptions.add(subscription)

    def remove(self, subscription: Subscription) -> None:
        """Send no more pictures to it."""
        self._subscriptions.discard(subscription)

    async def run(self, broadcast: Broadcast, output: str) -> None:
        """Encode the newest frame of the output whenever there is one, until cancelled or the broadcast has ended.

        A frame that cannot be encoded ends the viewers.
        """
        loop = asyncio.get_running_loop()
        try:
            with broadcast.watch(output) as slot:
                while True:
                    frame = await slot.get()
                    self._prepare(time.monotonic())
                    picture = await loop.run_in_executor(self._executor, self._encoder.encode, frame)
                    self._load.add_result(time.monotonic(), picture.arrived, picture.size)
                    for subscription in self._subscriptions:
                        subscription.put(picture)
        except Closed:
            return
        except Exception as error:
            logger.exception("a picture could not be encoded")
            for subscription in tuple(self._subscriptions):
                subscription.end(f"a picture could not be encoded: {error}")
        finally:
            self.is_over = True
            self._encoder.close()

    def _prepare(self, now: float) -> None:
        """Set the rate of the next picture, and make it a keyframe if one is wanted and the last is old enough."""
        settled = [each.settled_estimate(now) for each in self._subscriptions]
        estimates = settled if any(settled) else [each.estimate for each in self._subscriptions]
        if rate := common_rate(estimates, self.highest_rate):
            self._encoder.rate = rate
        if now - self._keyframe_at >= KEYFRAME_SECONDS and any(each.wants_keyframe for each in self._subscriptions):
            self._keyframe_at = now
            self._encoder.want_keyframe()


def common_rate(estimates: Iterable[int], highest: int) -> int:
    """The bits per second for viewers with these estimates (0: unknown), at most `highest`; 0 if none is known.

    It is what the slowest can take, except those that can take much less than the fastest.
    """
    known = [min(estimate, highest) for estimate in estimates if estimate]
    return min((estimate for estimate in known if estimate >= MUCH_LESS * max(known)), default=0)


class Encodings:
    """The encodings of one broadcast. One that is shared is opened by its first viewer and closed by its last."""

    def __init__(self, broadcast: Broadcast, sessions: Sessions, executor: Executor) -> None:
        self._broadcast, self._sessions, self._executor = broadcast, sessions, executor
        self._shared: dict[tuple[str, ...], tuple[Encoding, AsyncExitStack]] = {}
        self.viewers = 0
        """How many hold it."""

    def makes(self, output: str) -> bool:
        """Whether there is an encoding of this output that viewers share."""
        return any(made == output for made, *_ in self._shared)

    def has_room(self, output: str) -> bool:
        """Whether admission allows one more encoding."""
        return self._sessions.has_room_for_encoding(self._broadcast.pixels[output])

    @asynccontextmanager
    async def share(
        self, output: str, codec: RTCRtpCodecParameters, subscription: Subscription
    ) -> AsyncIterator[Encoding]:
        """Take part in what all viewers of an output with this codec share, for the length of the block."""
        key = output, codec.mimeType.lower(), str(codec.parameters.get("packetization-mode", ""))
        if key not in self._shared or self._shared[key][0].is_over:
            stack = AsyncExitStack()
            self._shared[key] = await stack.enter_async_context(self._open(output, codec)), stack
        entry = encoding, stack = self._shared[key]
        encoding.add(subscription)
        try:
            yield encoding
        finally:
            encoding.remove(subscription)
            if not len(encoding):
                if self._shared.get(key) is entry:
                    del self._shared[key]
                await stack.aclose()

    @asynccontextmanager
    async def open_own(
        self, output: str, codec: RTCRtpCodecParameters, subscription: Subscription, most: int
    ) -> AsyncIterator[Encoding]:
        """An encoding for one viewer, of at most `most` bits per second, for the length of the block.

        Raises:
            OutOfCpu: one more encoding does not fit.
        """
        async with self._open(output, codec, most) as encoding:
            encoding.add(subscription)
            try:
                yield encoding
            finally:
                encoding.remove(subscription)

    @asynccontextmanager
    async def _open(
        self, output: str, codec: RTCRtpCodecParameters, most: int | None = None
    ) -> AsyncIterator[Encoding]:
        # The first viewer of a shared one has been admitted with what it costs.
        with self._sessions.charge_encoding(self._broadcast.pixels[output], admit=most is not None) as load:
            encoding = Encoding(codec, self._executor, load, most)
            task = asyncio.create_task(encoding.run(self._broadcast, output), name="webrtc-encoding")
            try:
                yield encoding
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
