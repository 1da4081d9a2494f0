"""Backends: composed results from a pipeline of this process, or from a service elsewhere."""

from asyncio import Runner
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any, TypeAlias

from portrait.client import Client, Picture
from portrait.core.compositors import Options, open_compositor
from portrait.core.pipeline import Pipeline
from portrait.core.segmenters import Model
from portrait.errors import SegmentationFailed
from portrait.image.compressed import decode_frame
from portrait.image.convert import recolored
from portrait.image.frame import CAMERA, Frame, pack_i420
from portrait.metrics import Metrics
from portrait.transports.files.exchange import REPLY_SECONDS, Exchange
from portrait.v1 import segmentation_pb2 as pb

MAX_PIXELS = 2**26
"""Pixels of a result, at most."""

STILL_SECONDS = 120.0
"""How long a still may take from its first byte to the last of its result: one of 33 MB takes 27 s at 10 Mbit/s."""

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
            opening = client.open_stream(
                model=named, every_frame=True, reply_seconds=REPLY_SECONDS, format=pb.PICTURE_FORMAT_I420, **output
            )
            stream = runner.run(stack.enter_async_context(opening))
            exchange = runner.run(stack.enter_async_context(Exchange(stream)))
            yield lambda frames: _through(runner, exchange, frames)
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
            reply = await client.segment(picture, model=model, timeout=STILL_SECONDS, **output)
            made = decode_frame(reply.picture.data, MAX_PIXELS, "result", frame.timestamp, frame.arrived)
            return recolored(made, frame.colors)

        try:
            runner.run(stack.enter_async_context(client))
            yield lambda frames: (runner.run(segment(frame)) for frame in frames)
        finally:
            runner.run(stack.aclose())


async def _still_default(client: Client) -> str:
    """The name of the model a service uses for stills and files; "" of one that does not say."""
    return next((model.name for model in await client.models(timeout=REPLY_SECONDS) if model.still_default), "")


def _through(runner: Runner, exchange: Exchange, frames: Iterable[Frame]) -> Iterator[Frame]:
    """The results of `frames`; the loop runs only while something is sent or waited for."""
    for frame in frames:
        yield from runner.run(exchange.send(frame))
    while (result := runner.run(exchange.receive())) is not None:
        yield result
