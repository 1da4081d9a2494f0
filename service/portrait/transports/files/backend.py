"""Who does the work: a pipeline of this process, or a service elsewhere."""

import itertools
from asyncio import Runner
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any, TypeAlias

from portrait.client import Client, Picture
from portrait.core.compositors import Options, open_compositor
from portrait.core.pipeline import Pipeline
from portrait.core.segmenters import Model
from portrait.errors import SegmentationFailed
from portrait.image.convert import frame_from_i420, recolored
from portrait.image.frame import CAMERA, Frame, Timestamp, pack_i420
from portrait.metrics import Metrics
from portrait.v1 import segmentation_pb2 as pb

Work: TypeAlias = Callable[[Frame], Frame]
"""A frame to its composed result."""


@contextmanager
def local_work(model: Model, options: Options) -> Iterator[Work]:
    """Through a pipeline of this process."""
    compositor, metrics = open_compositor(options), Metrics()
    pipeline = Pipeline(model.open(), (model.width, model.height), metrics)

    def work(frame: Frame) -> Frame:
        result = pipeline.run(frame, options, compositor)
        if result.failure is not None:
            raise SegmentationFailed(f"frame at {frame.arrived:.3f} s: {result.failure}") from result.failure
        return result.compose()

    try:
        yield work
    finally:
        pipeline.close()


@contextmanager
def remote_work(client: Client, model: str, **output: Any) -> Iterator[Work]:
    """Through a stream of a running service; every frame is answered. Opens the client and closes it."""
    numbers = itertools.count()
    with Runner() as runner:
        stack = AsyncExitStack()
        try:
            runner.run(stack.enter_async_context(client))
            opening = client.open_stream(model=model, every_frame=True, format=pb.PICTURE_FORMAT_I420, **output)
            stream = runner.run(stack.enter_async_context(opening))

            async def turn(frame: Frame) -> Frame:
                picture = Picture.i420(pack_i420(recolored(frame, CAMERA)), frame.width, frame.height)
                await stream.send(picture, next(numbers), _microseconds(frame.timestamp))
                reply = await stream.receive()
                if reply is None:
                    raise SegmentationFailed("the server ended the stream")
                if reply.error is not None:
                    raise reply.error
                width, height = reply.picture.width, reply.picture.height
                made = frame_from_i420(reply.picture.data, width, height, frame.timestamp, frame.arrived)
                return recolored(made, frame.colors)

            yield lambda frame: runner.run(turn(frame))
        finally:
            runner.run(stack.aclose())


def _microseconds(time: Timestamp) -> int:
    """Never 0, which says that there is no time: a film behind the person would go by the frame's arrival."""
    return round(time.ticks * time.time_base * 1_000_000) or 1
