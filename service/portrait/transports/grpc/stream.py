"""One SegmentStream call: frames through the slot and the session, results back."""

import asyncio
import contextlib
import time
from asyncio import timeout
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TypeAlias

import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from portrait.admission.capacity import RETRY_AFTER
from portrait.admission.quality import Quality
from portrait.core.presence import Presence
from portrait.errors import (
    BadOption,
    Idle,
    NotConfigured,
    PortraitError,
    SegmentationHangs,
    SessionDrained,
    SessionEnded,
    Unauthenticated,
)
from portrait.image.clip import Clip
from portrait.image.frame import Frame
from portrait.sessions.newest_slot import Closed, NewestSlot
from portrait.sessions.session import Session
from portrait.transports.grpc.codec import EncodedResult, IncomingPicture, Output, read_output
from portrait.transports.grpc.status import to_status
from portrait.v1 import segmentation_pb2 as pb

StreamSession: TypeAlias = Session[IncomingPicture, EncodedResult]
ReadBackground: TypeAlias = Callable[[pb.Output], Awaitable[Frame | Clip | None]]
StreamContext: TypeAlias = grpc.aio.ServicerContext[pb.SegmentStreamRequest, pb.SegmentStreamResponse]

MAX_PRIOR_EVERY = 1_000_000

QUALITIES = {quality: pb.Quality.Value(f"QUALITY_{quality.name}") for quality in Quality}


@dataclass(frozen=True, slots=True)
class Controls:
    """What the client has asked for up to some frame; a control message replaces it whole.

    Resets and priors are counted: one that was asked for before a frame that is dropped applies to the newer frame
    that is processed instead.
    """

    output: Output
    resets: int = 0
    priors: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class WaitingFrame:
    """A frame that has arrived and waits for the session."""

    frame: pb.Frame
    controls: Controls
    """Those that applied when it arrived."""
    arrived: float
    """Seconds on the monotonic clock."""
    received_at: float
    """Seconds of the epoch."""


class IdleTimeout:
    """Cuts its block by TimeoutError when one wait in it takes longer than `seconds`.

    An async context manager, like `asyncio.timeout`, for loops that wait once for each frame: to begin a wait is an
    assignment, where `asyncio.timeout` would set and cancel a timer.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._loop = seconds, asyncio.get_running_loop()
        self._since: float | None = None
        self._timeout = timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Begin a wait, or begin it anew."""
        self._since = self._loop.time()

    def end(self) -> None:
        """End the wait: nothing is timed."""
        self._since = None

    async def __aenter__(self) -> "IdleTimeout":
        await self._timeout.__aenter__()
        self._timer = self._loop.call_later(self._seconds, self._check)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._timer is not None
        self._timer.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _check(self) -> None:
        now = self._loop.time()
        left = self._seconds - (now - self._since) if self._since is not None else self._seconds
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
        else:
            self._timeout.reschedule(now)


async def read_config(requests: AsyncIterator[pb.SegmentStreamRequest], idle_seconds: float) -> pb.StreamConfig:
    """The configuration, which is the first message of a stream.

    Raises:
        NotConfigured: another message, or none.
        BadOption: a field of it is wrong.
        Idle: no message within `idle_seconds`.
    """
    try:
        async with timeout(idle_seconds):
            first = await anext(requests, None)
    except TimeoutError:
        raise Idle(f"got no message for {idle_seconds:g} s, expected config") from None
    kind = first.WhichOneof("message") if first is not None else None
    if first is None or kind != "config":
        raise NotConfigured("message", f"got {kind or 'nothing'} as the first message, expected config")
    config = first.config
    if config.delivery not in pb.Delivery.values():
        raise BadOption("delivery", f"got {config.delivery}, expected one of {pb.Delivery.keys()}")
    if config.prior_every > MAX_PRIOR_EVERY:
        raise BadOption("prior_every", f"got {config.prior_every}, expected 0 to {MAX_PRIOR_EVERY}")
    return config


class StreamCall:
    """A SegmentStream call once its session is open. `run` answers its frames until it ends."""

    def __init__(
        self,
        session: StreamSession,
        context: StreamContext,
        config: pb.StreamConfig,
        output: Output,
        *,
        read_background: ReadBackground,
        idle_seconds: float,
    ) -> None:
        self._session, self._context, self._read_background = session, context, read_background
        self._every = config.delivery == pb.DELIVERY_EVERY_FRAME
        self._prior_every = config.prior_every if session.model.stateful else 0
        self._idle_seconds = idle_seconds
        self._slot: NewestSlot[WaitingFrame] = NewestSlot()
        self._taking = IdleTimeout(idle_seconds)
        self._writing = asyncio.Lock()
        self._applied = Controls(output)
        self._results = self._dropped = 0
        self._expired: Unauthenticated | None = None

    def expire(self, error: Unauthenticated) -> None:
        """End the stream: its credentials are no longer valid."""
        self._expired = error
        self._session.end(str(error))

    async def run(self, requests: AsyncIterator[pb.SegmentStreamRequest]) -> None:
        """Answer frames until the client has sent its last or the session is ended.

        Raises:
            BadInput: a message that has no place here.
            Idle: no frame for too long, or a result that the client did not take for too long.
            SessionDrained, SegmentationHangs, SessionEnded, Unauthenticated: the session was ended.
        """
        reader = asyncio.create_task(self._read(requests), name="grpc-reader")
        ended = asyncio.create_task(self._close_at_end(), name="grpc-ended")
        leaving = asyncio.create_task(self._send_goaway(), name="grpc-leaving")
        try:
            async with self._taking:
                while True:
                    await self._session.pace()
                    await self._answer(await self._slot.get())
        except TimeoutError:
            raise Idle(f"the client took no result for {self._idle_seconds:g} s") from None
        except Closed:
            if self._expired is not None:
                raise self._expired from None
            if ended.done():
                reason = f"the stream was ended: {ended.result()}"
                raise (SessionDrained(reason, RETRY_AFTER) if self._session.leaving else SessionEnded(reason)) from None
            await reader
        finally:
            self._session.drop(self._slot.dropped - self._dropped)
            for task in (reader, ended, leaving):
                task.cancel()
            await asyncio.gather(reader, ended, leaving, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[pb.SegmentStreamRequest]) -> None:
        """Put frames into the slot; nothing else happens here, so that the newest frame is never late."""
        controls = self._applied
        try:
            async with IdleTimeout(self._idle_seconds) as coming:
                coming.begin()
                async for request in requests:
                    kind = request.WhichOneof("message")
                    if kind == "frame":
                        if self._every:
                            coming.end()  # a sender that is slowed down is not idle
                            await self._slot.wait_empty()
                        self._slot.put(WaitingFrame(request.frame, controls, time.monotonic(), time.time()))
                        coming.begin()
                    elif kind == "control":
                        controls = await self._control(request.control, controls)
                    else:
                        raise NotConfigured(
                            "message", f"got {kind or 'nothing'} after the first message, expected frame or control"
                        )
        except TimeoutError:
            raise Idle(f"got no frame for {self._idle_seconds:g} s") from None
        except Closed:
            pass  # the session was ended
        finally:
            self._slot.close()

    async def _control(self, control: pb.Control, controls: Controls) -> Controls:
        output = controls.output
        if control.HasField("output"):
            output = read_output(control.output, await self._read_background(control.output))
            # Checked now, so that a bad one is refused here and not at the next frame.
            self._session.check(output.options)
        return replace(
            controls,
            output=output,
            resets=controls.resets + control.reset_prior,
            priors=controls.priors + control.send_prior,
        )

    async def _answer(self, waiting: WaitingFrame) -> None:
        lost, self._dropped = self._slot.dropped - self._dropped, self._slot.dropped
        # Filled in in place: assigning one message to a field of another copies it, picture and all.
        response = pb.SegmentStreamResponse()
        result, frame = response.result, waiting.frame
        result.id, result.timestamp_us = frame.id, frame.timestamp_us
        set_seconds(result.received_at, waiting.received_at)
        if lost:
            self._session.drop(lost)
            result.dropped, result.drop_reason = lost, pb.DROP_REASON_NEWER_FRAME
        await self._process(waiting, self._apply(waiting.controls), result)
        self._taking.begin()  # a client that takes no result must not keep the session
        await self._write(response)
        self._taking.end()

    def _apply(self, controls: Controls) -> bool:
        """Apply what was asked for up to this frame. Returns whether its result has to carry the prior."""
        before, self._applied = self._applied, controls
        if controls.output is not before.output:
            self._session.change(controls.output.options)
        if controls.resets > before.resets:
            self._session.reset()
        self._results += 1
        due = bool(self._prior_every) and self._results % self._prior_every == 0
        return self._session.model.stateful and (due or controls.priors > before.priors)

    async def _process(self, waiting: WaitingFrame, wants_prior: bool, result: pb.FrameResult) -> None:
        frame = waiting.frame
        picture = IncomingPicture(frame.picture, waiting.controls.output, frame.timestamp_us, wants_prior)
        try:
            processed = await self._session.process(picture, waiting.arrived)
        except SegmentationHangs:
            raise
        except PortraitError as error:
            result.error.CopyFrom(to_status(error))
            return
        if processed.failure is not None:
            result.error.CopyFrom(to_status(processed.failure))
        result.quality = QUALITIES[processed.quality]
        if processed.carried:
            result.carried = True
        write_presence(result.presence, processed.presence)
        processed.wire.picture.write(result.picture)
        if processed.wire.prior is not None:
            processed.wire.prior.write(result.prior)
        set_seconds(result.wait_time, processed.waited)
        set_seconds(result.work_time, processed.worked)

    async def _close_at_end(self) -> str:
        """Wake the loop that waits for frames when the session is ended; gives the reason."""
        reason = await self._session.wait_ended()
        self._slot.close()
        return reason

    async def _send_goaway(self) -> None:
        """Tell the client that the server is about to stop."""
        goaway = pb.Goaway(time_left=duration(await self._session.wait_leaving()))
        with contextlib.suppress(grpc.aio.UsageError, grpc.aio.InternalError):  # the call is over already
            await self._write(pb.SegmentStreamResponse(goaway=goaway))

    async def _write(self, response: pb.SegmentStreamResponse) -> None:
        async with self._writing:  # one write at a time is all a call can take
            await self._context.write(response)


def write_presence(message: pb.Presence, presence: Presence) -> None:
    """Fill in an empty message."""
    message.present, message.share = presence.present, presence.share
    if (box := presence.box) is not None:
        place = message.box
        place.left, place.top, place.width, place.height = box.left, box.top, box.width, box.height


def duration(seconds: float) -> Duration:
    """Seconds, 0 or more, as the contract writes them."""
    message = Duration()
    set_seconds(message, seconds)
    return message


def set_seconds(message: Duration | Timestamp, seconds: float) -> None:
    """Write seconds, 0 or more, to the microsecond. The methods of the messages take ten times as long."""
    whole, micros = divmod(round(seconds * 1e6), 1_000_000)
    message.seconds, message.nanos = whole, 1000 * micros
