"""Failover: the frames of one source, sent over one stream after another until all are answered."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import TypeAlias

from portrait_client.flow_control import FlowControl
from portrait_client.stream import Stream
from portrait_client.types import Array, ClientError, Picture, Reply
from portrait_client.v1 import segmentation_pb2 as pb

Frames: TypeAlias = AsyncIterable[Picture | Array] | Iterable[Picture | Array]
OpenStream: TypeAlias = Callable[[pb.Picture | None], AbstractAsyncContextManager[Stream]]
"""Opens the next stream, with the prior to continue from."""

LOST = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
"""Codes after which another stream may answer the same frames."""

FULL = "RESOURCE_EXHAUSTED"
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between two attempts; doubled each time."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """When a stream counts as lost, and when reconnecting stops."""

    reconnect_seconds: float
    """How long to try other streams after one was lost; 0: do not try."""
    reply_seconds: float
    """A stream is lost when the server leaves a frame unanswered for this long."""


@dataclass(slots=True)
class _Sent:
    picture: Picture
    at: float


class Failover:
    """Sends the frames of one source, numbered from 0; each new stream continues from the last prior.

    With `every_frame` unanswered frames are sent again on the next stream; without, they count as dropped.
    """

    def __init__(
        self, frames: Frames, open_stream: OpenStream, flow: FlowControl, timeouts: Timeouts, every_frame: bool
    ) -> None:
        self._source = _iterate(frames)
        self._open_stream, self._flow, self._timeouts, self._every = open_stream, flow, timeouts, every_frame
        self._next_id = self._lost = 0
        self._unanswered: dict[int, _Sent] = {}
        self._room = asyncio.Event()
        self._pulled: asyncio.Task[Picture | None] | None = None
        self._exhausted = False
        self._prior: pb.Picture | None = None
        self._lost_since: float | None = None
        """When the last stream was lost, if no reply has come since; time spent waiting for the source is added."""
        self._finished_at: float | None = None
        """When the last frame of the current stream was sent."""
        self._started = False

    async def replies(self) -> AsyncGenerator[Reply, None]:
        """The replies, in the order of their frames.

        Raises:
            ClientError: refused, or no stream was found for `reconnect_seconds`.
            Exception: whatever the source raises.
        """
        pause = FIRST_PAUSE
        try:
            while not self._exhausted or self._unanswered:
                try:
                    async with self._open_stream(self._prior) as stream:
                        self._flow.limit(stream.info.max_in_flight)
                        self._started = True
                        async for reply in self._through(stream):
                            self._lost_since, pause = None, FIRST_PAUSE
                            yield reply
                except ClientError as error:
                    self._check_time_left(error)
                    await asyncio.sleep(pause)
                    pause = min(LONGEST_PAUSE, 2 * pause)
                if not self._unanswered and not self._exhausted:
                    self._exhausted = (await self._wait_for_frame()).result() is None
        finally:
            if self._pulled is not None:
                self._pulled.cancel()
                await asyncio.gather(self._pulled, return_exceptions=True)

    def _check_time_left(self, error: ClientError) -> None:
        """Raise `error` when another stream would not help, or when the time to find one is over."""
        now = time.monotonic()
        full = error.code == FULL and error.retry_after is not None
        again = error.code in LOST or (full and self._started)
        if self._lost_since is None:
            self._lost_since = now
        if not again or now - self._lost_since >= self._timeouts.reconnect_seconds:
            raise error

    async def _through(self, stream: Stream) -> AsyncIterator[Reply]:
        sender = asyncio.create_task(self._send(stream), name="portrait-client-sender")
        try:
            while (reply := await self._receive(stream, sender)) is not None:
                yield self._noted(reply)
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _receive(self, stream: Stream, sender: asyncio.Task[None]) -> Reply | None:
        receiving = asyncio.create_task(stream.receive(), name="portrait-client-receiver")
        since = time.monotonic()
        try:
            while not receiving.done():
                waited = {receiving} if sender.done() else {receiving, sender}
                await asyncio.wait(waited, timeout=self._time_left(since), return_when=asyncio.FIRST_COMPLETED)
                if sender.done() and (failure := sender.exception()) and not isinstance(failure, ClientError):
                    raise failure  # the source's; the receiving side raises that of the stream
                if not receiving.done() and self._time_left(since) == 0.0:
                    if not self._unanswered:
                        return None  # all is answered, and the server does not end the stream
                    raise ClientError("DEADLINE_EXCEEDED", f"no reply for {self._timeouts.reply_seconds:g} s")
            return receiving.result()
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    def _time_left(self, since: float) -> float:
        """Seconds until the oldest unanswered frame is overdue, or the end of a stream whose frames are all answered.

        Counted from `since` at the earliest, when this side began to listen: before, the caller was busy with the
        previous reply, and the next one may have come long ago.
        """
        oldest, now = next(iter(self._unanswered.values()), None), time.monotonic()
        asked = self._finished_at if oldest is None else oldest.at
        return max(0.0, (now if asked is None else max(asked, since)) + self._timeouts.reply_seconds - now)

    def _noted(self, reply: Reply) -> Reply:
        sent = self._unanswered.get(reply.id)
        for frame_id in [known for known in self._unanswered if known <= reply.id]:
            del self._unanswered[frame_id]
        if sent is not None:
            self._flow.replied(time.monotonic() - sent.at, reply.work_seconds, reply.dropped)
        self._room.set()
        if reply.prior_picture is not None:
            self._prior = reply.prior_picture
        lost, self._lost = self._lost, 0
        return replace(reply, dropped=reply.dropped + lost) if lost else reply

    async def _send(self, stream: Stream) -> None:
        self._finished_at = None
        if self._every:
            for frame_id, sent in list(self._unanswered.items()):
                sent.at = time.monotonic()
                await stream.send(sent.picture, frame_id)
        else:
            self._lost += len(self._unanswered)
            self._unanswered.clear()
        moved = False
        while not moved and (frame := await self._next_frame()) is not None:
            if moved := stream.leaving:
                # The last frame here brings the prior for the stream that follows.
                await stream.change(send_prior=True)
            frame_id = self._next_id
            self._unanswered[frame_id] = _Sent(frame, time.monotonic())
            self._next_id += 1
            await stream.send(frame, frame_id)
        await stream.finish()
        self._finished_at = time.monotonic()

    async def _next_frame(self) -> Picture | None:
        """Wait until a frame may be sent, then for the frame: one that waited on this side would only grow old."""
        while len(self._unanswered) >= self._flow.window:
            self._room.clear()
            await self._room.wait()
        pulled = await self._wait_for_frame()
        frame, self._pulled = pulled.result(), None
        self._exhausted = frame is None
        return frame

    async def _wait_for_frame(self) -> asyncio.Task[Picture | None]:
        """A frame, or the end of the source. Cancelling is safe: the pull continues, and the next call returns it.

        Time in which the server had nothing to answer does not count towards its timeout.
        """
        if self._pulled is None:
            self._pulled = asyncio.create_task(_pull(self._source), name="portrait-client-source")
        idle, started = not self._unanswered, time.monotonic()
        try:
            await asyncio.wait({self._pulled})
        finally:
            if idle and self._lost_since is not None:
                self._lost_since += time.monotonic() - started
        return self._pulled


async def _pull(source: AsyncIterator[Picture]) -> Picture | None:
    return await anext(source, None)


async def _iterate(frames: Frames) -> AsyncIterator[Picture]:
    if isinstance(frames, AsyncIterable):
        async for frame in frames:
            yield Picture.of(frame)
    else:
        for frame in frames:
            yield Picture.of(frame)
