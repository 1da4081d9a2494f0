"""The calls of portrait.v1.SegmentationService."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from portrait.backgrounds import Backgrounds
from portrait.errors import BadOption, Draining, NotConfigured, PortraitError
from portrait.latest import Closed, Latest
from portrait.segmenters import Model
from portrait.session import Session
from portrait.sessions import RETRY_AFTER, Sessions
from portrait.transports.grpc.codec import Arrival, GrpcCodec, Output, read_output
from portrait.transports.grpc.status import abort, to_status
from portrait.v1 import segmentation_pb2 as pb
from portrait.v1 import segmentation_pb2_grpc as pb_grpc

logger = logging.getLogger(__name__)

StreamSession = Session[Arrival, pb.Picture]


class Waiting:
    """A frame between its arrival and its turn."""

    __slots__ = ("arrival", "arrived", "frame", "received_at")

    def __init__(self, frame: pb.Frame, output: Output) -> None:
        self.frame, self.received_at, self.arrived = frame, time.time(), time.monotonic()
        self.arrival = Arrival(frame.picture, output, frame.timestamp_us)


class SegmentationServicer(pb_grpc.SegmentationServiceServicer):
    """Turns calls into sessions."""

    def __init__(
        self, sessions: Sessions, backgrounds: Backgrounds, max_frame_pixels: int, max_still_pixels: int
    ) -> None:
        self._sessions, self._backgrounds = sessions, backgrounds
        self._max_frame_pixels, self._max_still_pixels = max_frame_pixels, max_still_pixels

    async def Segment(  # noqa: N802  the name is the contract's
        self, request: pb.SegmentRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.SegmentResponse:
        """One picture through a session of its own."""
        try:
            output = await asyncio.to_thread(read_output, request.output, self._backgrounds)
            codec = GrpcCodec(self._max_still_pixels)
            async with self._sessions.open("grpc", codec, output.options, request.model) as session:
                turn = await session.turn(Arrival(request.picture, output, 0), time.monotonic())
            if turn.failure is not None:
                raise turn.failure
            return pb.SegmentResponse(picture=turn.wire, work_time=_duration(turn.worked))
        except PortraitError as error:
            await abort(context, error)
            raise  # abort() has raised already; this tells the type checker

    async def ListModels(  # noqa: N802  the name is the contract's
        self,
        request: pb.ListModelsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> pb.ListModelsResponse:
        """The models sessions may ask for."""
        models = self._sessions.models
        return pb.ListModelsResponse(models=[_model(model, models.default) for model in models.by_name.values()])

    async def SegmentStream(  # type: ignore[override]  # noqa: N802  a coroutine that writes is a handler too
        self,
        request_iterator: AsyncIterator[pb.SegmentStreamRequest],
        context: grpc.aio.ServicerContext[pb.SegmentStreamRequest, pb.SegmentStreamResponse],
    ) -> None:
        """One session for the length of the call."""
        try:
            config, output = await self._read_config(request_iterator)
            codec = GrpcCodec(self._max_frame_pixels)
            async with self._sessions.open("grpc", codec, output.options, config.model) as session:
                await context.write(pb.SegmentStreamResponse(info=self._info(session)))
                await self._stream(session, request_iterator, context, config.delivery, output)
        except PortraitError as error:
            await abort(context, error)

    async def _read_config(self, requests: AsyncIterator[pb.SegmentStreamRequest]) -> tuple[pb.StreamConfig, Output]:
        first = await anext(requests, None)
        kind = first.WhichOneof("message") if first is not None else None
        if first is None or kind != "config":
            raise NotConfigured("message", f"the first message is {kind or 'empty'}; expected config")
        if first.config.delivery not in pb.Delivery.values():
            raise BadOption(
                "delivery", f"unknown delivery {first.config.delivery}; expected one of {pb.Delivery.keys()}"
            )
        output = await asyncio.to_thread(read_output, first.config.output, self._backgrounds)
        return first.config, output

    async def _stream(
        self,
        session: StreamSession,
        requests: AsyncIterator[pb.SegmentStreamRequest],
        context: grpc.aio.ServicerContext[pb.SegmentStreamRequest, pb.SegmentStreamResponse],
        delivery: "pb.Delivery.ValueType",
        output: Output,
    ) -> None:
        slot: Latest[Waiting] = Latest()
        every = delivery == pb.DELIVERY_EVERY_FRAME
        reader = asyncio.create_task(self._read(session, requests, slot, every, output), name="grpc-reader")
        watcher = asyncio.create_task(_close_at_end(session, slot), name="grpc-watcher")
        dropped, applied = 0, output
        try:
            while True:
                waiting = await slot.get()
                if waiting.arrival.output is not applied:
                    applied = waiting.arrival.output
                    session.change(applied.options)
                lost, dropped = slot.dropped - dropped, slot.dropped
                session.drop(lost)
                await context.write(pb.SegmentStreamResponse(result=await _turn(session, waiting, lost)))
        except Closed:
            if watcher.done():
                raise Draining(f"the stream was ended: {watcher.result()}", RETRY_AFTER) from None
            await reader
        finally:
            session.drop(slot.dropped - dropped)
            for task in (reader, watcher):
                task.cancel()
            await asyncio.gather(reader, watcher, return_exceptions=True)

    async def _read(
        self,
        session: StreamSession,
        requests: AsyncIterator[pb.SegmentStreamRequest],
        slot: Latest[Waiting],
        every: bool,
        output: Output,
    ) -> None:
        """Put frames into the slot; nothing else happens here, so that the newest frame is never late."""
        try:
            async for request in requests:
                kind = request.WhichOneof("message")
                if kind == "control":
                    output = await self._control(session, request.control, output)
                elif kind == "frame":
                    if every:
                        await slot.wait_empty()
                    slot.put(Waiting(request.frame, output))
                else:
                    raise NotConfigured(
                        "message", f"{kind or 'an empty message'} after the first; expected frame or control"
                    )
        finally:
            slot.close()

    async def _control(self, session: StreamSession, control: pb.Control, output: Output) -> Output:
        if control.reset_prior:
            session.reset()
        if not control.HasField("output"):
            return output
        changed = await asyncio.to_thread(read_output, control.output, self._backgrounds)
        # Tried now, so that a bad one is refused here and not at the next frame.
        session.check(changed.options)
        return changed

    def _info(self, session: StreamSession) -> pb.StreamInfo:
        model = _model(session.model, self._sessions.models.default)
        return pb.StreamInfo(session_id=session.id, model=model, max_pixels=self._max_frame_pixels)


async def _turn(session: StreamSession, waiting: Waiting, lost: int) -> pb.FrameResult:
    frame, received_at = waiting.frame, Timestamp()
    received_at.FromMicroseconds(round(waiting.received_at * 1e6))
    result = pb.FrameResult(id=frame.id, timestamp_us=frame.timestamp_us, received_at=received_at, dropped=lost)
    try:
        turn = await session.turn(waiting.arrival, waiting.arrived)
    except PortraitError as error:
        session.refuse(error)
        result.error.CopyFrom(to_status(error))
        return result
    if turn.failure is not None:
        result.error.CopyFrom(to_status(turn.failure))
    result.picture.CopyFrom(turn.wire)
    result.wait_time.CopyFrom(_duration(turn.waited))
    result.work_time.CopyFrom(_duration(turn.worked))
    return result


async def _close_at_end(session: StreamSession, slot: Latest[Waiting]) -> str:
    """When somebody ends the session, wake the loop that waits for frames."""
    reason = await session.wait_ended()
    slot.close()
    return reason


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration


def _model(model: Model, default: str) -> pb.Model:
    return pb.Model(
        name=model.name, width=model.width, height=model.height, stateful=model.stateful, default=model.name == default
    )
