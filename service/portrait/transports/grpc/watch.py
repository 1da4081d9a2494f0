"""Watch: the results of a named stream, a camera or one that a client publishes, to a client that sends no frames."""

import asyncio
import time
from asyncio import timeout
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import grpc
import grpc.aio

from portrait.admission.capacity import StreamLoad
from portrait.errors import BadOption, Idle, NotPublished, Unauthenticated
from portrait.image.frame import Frame
from portrait.security import Security
from portrait.sessions.broadcasts import RETRY_AFTER, Broadcast, Broadcasts
from portrait.sessions.newest_slot import Closed, NewestSlot
from portrait.sessions.registry import Sessions
from portrait.transports.grpc.auth import authorization
from portrait.transports.grpc.codec import GREY, MICROSECOND, EncodedPicture, encode_watched
from portrait.transports.grpc.stream import set_seconds, write_presence
from portrait.v1 import segmentation_pb2 as pb
from portrait.v1 import segmentation_pb2_grpc as pb_grpc

WatchContext: TypeAlias = grpc.aio.ServicerContext[pb.WatchRequest, pb.WatchResponse]

THREADS = 2
"""Threads that encode for these clients."""

COLOURED = (
    pb.PICTURE_FORMAT_JPEG, pb.PICTURE_FORMAT_I420, pb.PICTURE_FORMAT_RGB24, pb.PICTURE_FORMAT_PNG,
    pb.PICTURE_FORMAT_WEBP,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Watched:
    """What a client asks to be sent."""

    output: str
    """One of sessions.broadcasts.OUTPUTS."""
    format: "pb.PictureFormat.ValueType"


def read_watch(request: pb.WatchRequest) -> Watched:
    """What a request asks for, with its defaults filled in.

    Raises:
        BadOption: names the field.
    """
    if not request.stream:
        raise BadOption("stream", "got no name, expected that of a camera or of a published stream")
    if request.output not in pb.WatchOutput.values():
        raise BadOption("output", f"got {request.output}, expected one of {pb.WatchOutput.keys()}")
    is_mask = request.output != pb.WATCH_OUTPUT_COMPOSITE
    layouts = GREY if is_mask else COLOURED
    layout = request.format or layouts[0]
    if layout not in layouts:
        names = ", ".join(pb.PictureFormat.Name(each).removeprefix("PICTURE_FORMAT_") for each in layouts)
        raise BadOption("format", f"got {request.format}, expected one of {names} for this output")
    return Watched("probability" if is_mask else "composite", layout)


class Watchers:
    """The calls of Watch in this worker. A stream of another worker is asked of that one."""

    def __init__(self, sessions: Sessions, broadcasts: Broadcasts, security: Security, idle_seconds: float) -> None:
        self._sessions, self._broadcasts = sessions, broadcasts
        self._security, self._idle_seconds = security, idle_seconds
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="watch-encoder")

    def close(self) -> None:
        """End the threads."""
        self._executor.shutdown(wait=False)

    async def run(self, request: pb.WatchRequest, context: WatchContext) -> None:
        """Send results until the stream ends, the client goes away or its credentials expire.

        Raises:
            BadOption: a field of the request is wrong.
            NotPublished: there is no stream of that name now, or it has ended.
            TooManyViewers, OutOfCpu: one more does not fit.
            Idle: the client takes no result.
            Unauthenticated: its credentials have expired.
        """
        watched = read_watch(request)
        owner = self._sessions.shared.stream_names.owner(request.stream)
        if owner is not None and owner != self._sessions.shared.index:
            await self._forward(owner, request, context)
            return
        await self._broadcasts.wake(request.stream)
        with (
            self._broadcasts.view(request.stream) as broadcast,
            self._sessions.admit_viewer(broadcast.pixels[watched.output]) as load,
            broadcast.watch(watched.output) as slot,
        ):
            expired: list[Unauthenticated] = []

            def expire(error: Unauthenticated) -> None:
                expired.append(error)
                slot.close()

            ended = asyncio.create_task(_close_at_end(broadcast, slot), name="grpc-watch-ended")
            try:
                async with self._security.holding(authorization(context.invocation_metadata()), expire):
                    await self._send(broadcast, slot, watched, load, context)
            except Closed:
                if expired:
                    raise expired[0] from None
                raise NotPublished(f"the stream {request.stream!r} has ended", RETRY_AFTER) from None
            finally:
                ended.cancel()
                await asyncio.gather(ended, return_exceptions=True)

    async def _send(
        self,
        broadcast: Broadcast,
        slot: NewestSlot[Frame],
        watched: Watched,
        load: StreamLoad,
        context: WatchContext,
    ) -> None:
        loop, number, dropped = asyncio.get_running_loop(), 0, 0
        while True:
            frame = await slot.get()
            presence = broadcast.presence
            began = time.monotonic()
            encode = partial(encode_watched, frame, watched.format, is_mask=watched.output == "probability")
            picture = await loop.run_in_executor(self._executor, encode)
            number += 1
            lost, dropped = slot.dropped - dropped, slot.dropped
            response = pb.WatchResponse()
            _fill(response.result, number, frame, picture, lost)
            if presence is not None:
                write_presence(response.result.presence, presence)
            set_seconds(response.result.wait_time, max(0.0, began - frame.arrived))
            set_seconds(response.result.work_time, time.monotonic() - began)
            load.add_result(time.monotonic(), frame.arrived, (frame.width, frame.height))
            try:
                async with timeout(self._idle_seconds):
                    await context.write(response)
            except TimeoutError:
                raise Idle(f"the client took no result for {self._idle_seconds:g} s") from None

    async def _forward(self, owner: int, request: pb.WatchRequest, context: WatchContext) -> None:
        """Ask the worker that has the stream, with the caller's own credentials, and pass on what it answers."""
        given = context.invocation_metadata() or ()
        metadata = tuple((name, value) for name, value in given if name == "authorization")
        async with grpc.aio.insecure_channel(f"unix:{self._sessions.shared.grpc_socket(owner)}") as channel:
            call = pb_grpc.SegmentationServiceStub(channel).Watch(request, metadata=metadata)
            try:
                async for response in call:
                    await context.write(response)
            except grpc.aio.AioRpcError as error:
                trailing = tuple(error.trailing_metadata() or ())
                await context.abort(error.code(), error.details() or "", trailing)
            finally:
                call.cancel()


def _fill(result: pb.FrameResult, number: int, frame: Frame, picture: EncodedPicture, lost: int) -> None:
    result.id = number
    result.timestamp_us = round(frame.timestamp.ticks * frame.timestamp.time_base / MICROSECOND)
    set_seconds(result.received_at, time.time() - (time.monotonic() - frame.arrived))
    if lost:
        result.dropped, result.drop_reason = lost, pb.DROP_REASON_NEWER_FRAME
    picture.write(result.picture)


async def _close_at_end(broadcast: Broadcast, slot: NewestSlot[Frame]) -> None:
    await broadcast.ended.wait()
    slot.close()
