"""Exchange: frames to a running service and its composed results, both ways at once."""

import asyncio
import time
from collections import deque

from portrait.client import ClientError, Picture, Reply
from portrait.errors import SegmentationFailed
from portrait.image.convert import frame_from_i420, recolored
from portrait.image.frame import CAMERA, Frame, Timestamp, pack_i420
from portrait_client.client import MOST_IN_FLIGHT, START_IN_FLIGHT
from portrait_client.flow_control import FlowControl
from portrait_client.stream import Stream

REPLY_SECONDS = 30.0
"""How long a service may neither take a frame nor give a result. Longer than its own limits, whose errors say more."""


class Exchange:
    """The frames of one stream that answers every frame, and their results in the same order.

    It reads while it sends. A service takes no frame while it waits for a result to be taken, so a caller that only
    sends stands still as soon as frame and result are larger than what gRPC and the kernel hold on the way.

    An async context manager. Its loop may stand still between calls; only time spent in them counts.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._flow = FlowControl(START_IN_FLIGHT, MOST_IN_FLIGHT)
        self._flow.limit(stream.info.max_in_flight or MOST_IN_FLIGHT)
        self._unanswered: deque[tuple[Frame, float]] = deque()
        self._sent = 0
        self._receiving: asyncio.Task[Reply | None] | None = None

    async def __aenter__(self) -> "Exchange":
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the stream, if something is still waited for."""
        await _cancel(self._receiving)

    async def send(self, frame: Frame) -> list[Frame]:
        """Send a frame; the results that have come until there was room for the next.

        Raises:
            ClientError: the stream is lost, or the service is silent, or it failed at a frame.
            SegmentationFailed: the service has ended the stream, or given too many results.
            BadPicture: a result is no picture of its size.
        """
        # A message says nothing of colours, and the service takes them for a camera's.
        picture = Picture.i420(pack_i420(recolored(frame, CAMERA)), frame.width, frame.height)
        self._unanswered.append((frame, time.monotonic()))
        sending = asyncio.create_task(
            self._stream.send(picture, self._sent, _microseconds(frame.timestamp)), name="exchange-sender"
        )
        self._sent += 1
        results = []
        try:
            while not sending.done() or len(self._unanswered) >= self._flow.window:
                if (result := await self._wait(sending)) is not None:
                    results.append(result)
            await sending
        finally:
            await _cancel(sending)
        return results

    async def receive(self) -> Frame | None:
        """The next result; None after the last. It raises what `send` raises."""
        return await self._wait() if self._unanswered else None

    async def _wait(self, sending: asyncio.Task[None] | None = None) -> Frame | None:
        """Wait until a result has come, which is returned, or the frame is sent."""
        if self._receiving is None:
            self._receiving = asyncio.create_task(self._stream.receive(), name="exchange-receiver")
        waited = {self._receiving} if sending is None or sending.done() else {self._receiving, sending}
        done, _ = await asyncio.wait(waited, timeout=REPLY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            reason = f"the service has taken no frame and given no result for {REPLY_SECONDS:g} s"
            raise ClientError("DEADLINE_EXCEEDED", reason)
        if self._receiving not in done:
            return None
        received, self._receiving = self._receiving, None
        return self._result(received.result())

    def _result(self, reply: Reply | None) -> Frame:
        """The composed frame of a reply."""
        if reply is None:
            raise SegmentationFailed("the server ended the stream")
        if reply.error is not None:
            raise reply.error
        if not self._unanswered:
            raise SegmentationFailed(f"got more results than frames: {self._sent} were sent")
        frame, at = self._unanswered.popleft()
        self._flow.replied(time.monotonic() - at, reply.work_seconds, reply.dropped)
        width, height = reply.picture.width, reply.picture.height
        made = frame_from_i420(reply.picture.data, width, height, frame.timestamp, frame.arrived)
        return recolored(made, frame.colors)


async def _cancel(task: asyncio.Task[object] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _microseconds(time: Timestamp) -> int:
    """Never 0, which says that there is no time: a clip in the background would go by the frame's arrival."""
    return round(time.ticks * time.time_base * 1_000_000) or 1
