"""Failover: frames in, replies out, over as many streams as it takes."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import TypeAlias

from portrait.client.flow_control import Window
from portrait.client.stream import Stream
from portrait.client.types import Array, ClientError, Picture, Reply
from portrait.v1 import segmentation_pb2 as pb

Frames: TypeAlias = AsyncIterable[Picture | Array] | Iterable[Picture | Array]
Opening: TypeAlias = Callable[[pb.Picture | None], AbstractAsyncContextManager[Stream]]

LOST = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
"""Codes after which the same frames may fare better on another stream."""

FULL = "RESOURCE_EXHAUSTED"
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between attempts; doubled each time."""


@dataclass(frozen=True, slots=True)
class Patience:
    """When to give up."""

    reconnect_seconds: float
    """How long to look for another stream after one was lost; 0: not at all."""
    reply_seconds: float
    """A stream that leaves a frame unanswered for so long is lost."""


@dataclass(slots=True)
class _Sent:
    picture: Picture
    at: float


class Failover:
    """The frames of one source, numbered from 0, through one stream after the other; each goes on from the last prior.

    With `every_frame` unanswered frames are sent again on the next stream; without, they count as dropped.
    """

    def __init__(self, frames: Frames, opening: Opening, window: Window, patience: Patience, every_frame: bool) -> None:
        self._source = _iterate(frames)
        self._opening, self._window, self._patience, self._every = opening, window, patience, every_frame
        self._next_id = self._lost = 0
        self._unanswered: dict[int, _Sent] = {}
        self._room = asyncio.Event()
        self._pulled: asyncio.Task[Picture | None] | None = None
        self._exhausted = False
        self._prior: pb.Picture | None = None
        self._lost_since: float | None = None
        self._started = False

    async def replies(self) -> AsyncGenerator[Reply, None]:
        """The replies, in the order of their frames.

        Raises:
            ClientError: refused, or lost for longer than patience lasts.
            Exception: whatever the source raises.
        """
        pause = FIRST_PAUSE
        try:
            while not self._exhausted or self._unanswered:
                try:
                    async with self._opening(self._prior) as stream:
                        self._window.limit(stream.info.max_in_flight)
                        self._started = True
                        async for reply in self._through(stream):
                            self._lost_since, pause = None, FIRST_PAUSE
                            yield reply
                except ClientError as error:
                    self._check_patience(error)
                    await asyncio.sleep(pause)
                    pause = min(LONGEST_PAUSE, 2 * pause)
                if not self._unanswered and not self._exhausted:
                    self._exhausted = (await self._wait_for_frame()).result() is None
        finally:
            if self._pulled is not None:
                self._pulled.cancel()
                await asyncio.gather(self._pulled, return_exceptions=True)

    def _check_patience(self, error: ClientError) -> None:
        """Raise `error` when there is no point in going on."""
        now = time.monotonic()
        full = error.code == FULL and error.retry_after is not None
        again = error.code in LOST or (full and self._started)
        if self._lost_since is None:
            self._lost_since = now
        if not again or now - self._lost_since >= self._patience.reconnect_seconds:
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
                    raise failure  # the source's; what a stream died of is told by its reading end
                if not receiving.done() and self._time_left(since) == 0.0:
                    raise ClientError("DEADLINE_EXCEEDED", f"no reply for {self._patience.reply_seconds:g} s")
            return receiving.result()
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    def _time_left(self, since: float) -> float:
        """Seconds until the oldest unanswered frame is overdue for who has listened `since` then.

        Before, whoever takes the replies was busy with the last one: the next may have come long ago.
        """
        oldest, now = next(iter(self._unanswered.values()), None), time.monotonic()
        asked = now if oldest is None else max(oldest.at, since)
        return max(0.0, asked + self._patience.reply_seconds - now)

    def _noted(self, reply: Reply) -> Reply:
        sent = self._unanswered.get(reply.id)
        for frame_id in [known for known in self._unanswered if known <= reply.id]:
            del self._unanswered[frame_id]
        if sent is not None:
            self._window.replied(time.monotonic() - sent.at, reply.work_seconds, reply.dropped)
        self._room.set()
        if reply.prior_picture is not None:
            self._prior = reply.prior_picture
        lost, self._lost = self._lost, 0
        return replace(reply, dropped=reply.dropped + lost) if lost else reply

    async def _send(self, stream: Stream) -> None:
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

    async def _next_frame(self) -> Picture | None:
        """Wait for room, then for a frame: one that waits on this side would only grow old."""
        while len(self._unanswered) >= self._window.size:
            self._room.clear()
            await self._room.wait()
        pulled = await self._wait_for_frame()
        frame, self._pulled = pulled.result(), None
        self._exhausted = frame is None
        return frame

    async def _wait_for_frame(self) -> asyncio.Task[Picture | None]:
        """A frame, or the end of the source. Cancelling is safe: the pull goes on, and the next call finds it."""
        if self._pulled is None:
            self._pulled = asyncio.create_task(_pull(self._source), name="portrait-client-source")
        await asyncio.wait({self._pulled})
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
