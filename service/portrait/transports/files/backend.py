"""Backends: composed results from a pipeline of this process, or from a service elsewhere."""

import time
from asyncio import Runner
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any, TypeAlias

from portrait.client import Client, Picture
from portrait.core.compositors import Options, open_compositor
from portrait.core.pipeline import Pipeline
from portrait.core.segmenters import Model
from portrait.errors import SegmentationFailed
from portrait.image.compressed import decode_frame
from portrait.image.convert import frame_from_i420, recolored
from portrait.image.frame import CAMERA, Frame, Timestamp, pack_i420
from portrait.metrics import Metrics
from portrait.v1 import segmentation_pb2 as pb
from portrait_client.client import MOST_IN_FLIGHT, START_IN_FLIGHT
from portrait_client.flow_control import FlowControl
from portrait_client.stream import Stream

MAX_PIXELS = 2**26
"""Pixels of a result, at most."""

Work: TypeAlias = Callable[[Iterable[Frame]], Iterator[Frame]]
"""Frames to their composed results: one for each, in their order. It may take a few frames before it gives a result."""


@contextmanager
def local_work(model: Model, options: Options, metrics: Metrics) -> Iterator[Work]:
    """Work of a pipeline in this process; `metrics` may be shared with others."""
    compositor = open_compositor(options)
    pipeline = Pipeline(model.open(), (model.width, model.height), metrics)

    def compose(frame: Frame) -> Frame:
        result = pipeline.run(frame, options, compositor)
        if result.failure is not None:
            raise SegmentationFailed(f"frame at {frame.arrived:.3f} s: {result.failure}") from result.failure
        return result.compose()

    try:
        yield lambda frames: map(compose, frames)
    finally:
        pipeline.close()


@contextmanager
def remote_work(client: Client, model: str, live: bool = False, **output: Any) -> Iterator[Work]:
    """Work of a running service, through a stream that answers every frame. Opens the client and closes it.

    Without the name of a model it asks for the one that the service uses for files, unless the frames come from a live
    source. As many frames are under way as keep the service at work, so that the network's delay is not
    paid for each.
    """
    with Runner() as runner:
        stack = AsyncExitStack()
        try:
            runner.run(stack.enter_async_context(client))
            named = model if model or live else runner.run(_still_default(client))
            opening = client.open_stream(model=named, every_frame=True, format=pb.PICTURE_FORMAT_I420, **output)
            stream = runner.run(stack.enter_async_context(opening))
            yield lambda frames: _exchange(runner, stream, frames)
        finally:
            runner.run(stack.aclose())


@contextmanager
def remote_still(client: Client, model: str, **output: Any) -> Iterator[Work]:
    """Work of a running service on pictures that stand alone. Opens the client and closes it."""
    with Runner() as runner:
        stack = AsyncExitStack()
        output |= {"format": pb.PICTURE_FORMAT_PNG, "mask_size": pb.MASK_SIZE_FRAME}

        async def segment(frame: Frame) -> Frame:
            picture = Picture.i420(pack_i420(recolored(frame, CAMERA)), frame.width, frame.height)
            reply = await client.segment(picture, model=model, **output)
            made = decode_frame(reply.picture.data, MAX_PIXELS, "result", frame.timestamp, frame.arrived)
            return recolored(made, frame.colors)

        try:
            runner.run(stack.enter_async_context(client))
            yield lambda frames: (runner.run(segment(frame)) for frame in frames)
        finally:
            runner.run(stack.aclose())


async def _still_default(client: Client) -> str:
    """The name of the model a service uses for stills and files; "" of one that does not say."""
    return next((model.name for model in await client.models() if model.still_default), "")


def _exchange(runner: Runner, stream: Stream, frames: Iterable[Frame]) -> Iterator[Frame]:
    """The results of `frames`; the loop runs only while something is sent or waited for."""
    flow = FlowControl(START_IN_FLIGHT, MOST_IN_FLIGHT)
    flow.limit(stream.info.max_in_flight or MOST_IN_FLIGHT)
    sent: deque[tuple[Frame, float]] = deque()

    async def send(frame: Frame, number: int) -> None:
        # A message says nothing of colours, and the service takes them for a camera's.
        picture = Picture.i420(pack_i420(recolored(frame, CAMERA)), frame.width, frame.height)
        await stream.send(picture, number, _microseconds(frame.timestamp))

    async def receive(frame: Frame, at: float) -> Frame:
        reply = await stream.receive()
        if reply is None:
            raise SegmentationFailed("the server ended the stream")
        if reply.error is not None:
            raise reply.error
        flow.replied(time.monotonic() - at, reply.work_seconds, reply.dropped)
        width, height = reply.picture.width, reply.picture.height
        made = frame_from_i420(reply.picture.data, width, height, frame.timestamp, frame.arrived)
        return recolored(made, frame.colors)

    for number, frame in enumerate(frames):
        runner.run(send(frame, number))
        sent.append((frame, time.monotonic()))
        while len(sent) >= flow.window:
            yield runner.run(receive(*sent.popleft()))
    while sent:
        yield runner.run(receive(*sent.popleft()))


def _microseconds(time: Timestamp) -> int:
    """Never 0, which says that there is no time: a clip in the background would go by the frame's arrival."""
    return round(time.ticks * time.time_base * 1_000_000) or 1
