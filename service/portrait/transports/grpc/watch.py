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
from grpc_status import rpc_status

from portrait.admission.capacity import StreamLoad
from portrait.cluster.cluster import Cluster
from portrait.errors import BadOption, Idle, NotPublished, PodLost, Unauthenticated, WorkerLost
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

PASSED_ON = "portrait-passed-on"
"""Metadata of a call that another worker or pod passes on: it goes to no further pod."""

CHANNEL_OPTIONS = [("grpc.keepalive_time_ms", 5000), ("grpc.keepalive_timeout_ms", 2000)]
"""A pod that vanishes from the network is noticed within seven seconds."""

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
    """The calls of Watch in this worker. A stream of another worker, or of another pod, is asked of that one."""

    def __init__(
        self,
        sessions: Sessions,
        broadcasts: Broadcasts,
        security: Security,
        idle_seconds: float,
        cluster: Cluster | None = None,
    ) -> None:
        self._sessions, self._broadcasts, self._cluster = sessions, broadcasts, cluster
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
            WorkerLost, PodLost: the one that publishes the stream was lost.
            Idle: the client takes no result.
            Unauthenticated: its credentials have expired.
        """
        watched = read_watch(request)
        owner = self._sessions.shared.stream_names.owner(request.stream)
        if owner is not None and owner != self._sessions.shared.index:
            address = f"unix:{self._sessions.shared.grpc_socket(owner)}"
            lost = WorkerLost("the worker that had this stream has ended; try again", RETRY_AFTER)
            await _forward(grpc.aio.insecure_channel(address), request, context, lost)
            return
        if await self._forwarded_to_pod(request, context):
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

    async def _forwarded_to_pod(self, request: pb.WatchRequest, context: WatchContext) -> bool:
        """Pass on what the pod answers that publishes a stream; False when it is for this one to answer."""
        cluster = self._cluster
        passed_on = any(name == PASSED_ON for name, _ in context.invocation_metadata() or ())
        if cluster is None or passed_on or self._broadcasts.knows(request.stream):
            return False
        found = await cluster.streams.find(request.stream)
        if found is None:
            return False
        tls = cluster.tls
        credentials = grpc.ssl_channel_credentials(tls.authority, tls.key, tls.certificate)
        target = f"[{found.address}]" if ":" in found.address else found.address
        channel = grpc.aio.secure_channel(f"{target}:{cluster.config.grpc_port}", credentials, CHANNEL_OPTIONS)
        metrics = self._sessions.metrics
        try:
            lost = PodLost("the pod that publishes this stream cannot be reached; try again", RETRY_AFTER)
            await _forward(channel, request, context, lost)
        except PodLost:
            cluster.streams.forget(request.stream, found.address)
            metrics.forwarded("watch", "failed")
            raise
        except grpc.aio.AbortError:
            cluster.streams.forget(request.stream)
            metrics.forwarded("watch", "answered")
            raise
        metrics.forwarded("watch", "answered")
        return True


async def _forward(
    channel: grpc.aio.Channel, request: pb.WatchRequest, context: WatchContext, lost: PodLost | WorkerLost
) -> None:
    """Ask the worker or pod that has the stream, with the caller's own credentials, and pass on what it answers.

    Raises `lost` when there is no answer, or it breaks off.
    """
    given = context.invocation_metadata() or ()
    metadata = (*((name, value) for name, value in given if name == "authorization"), (PASSED_ON, "1"))
    async with channel:
        call = pb_grpc.SegmentationServiceStub(channel).Watch(request, metadata=metadata)
        try:
            async for response in call:
                await context.write(response)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE and rpc_status.from_call(error) is None:
                raise lost from error
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
