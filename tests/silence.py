"""Servers that are silent: what the tests of those who wait for a reply share."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

from portrait.v1 import segmentation_pb2 as pb
from portrait.v1 import segmentation_pb2_grpc as pb_grpc

INFO = pb.StreamInfo(max_in_flight=4)


def result(request: pb.SegmentStreamRequest) -> pb.SegmentStreamResponse:
    """The frame's own picture as its result."""
    return pb.SegmentStreamResponse(result=pb.FrameResult(id=request.frame.id, picture=request.frame.picture))


async def silent(requests: AsyncIterator[Any], context: Any) -> None:
    """Nothing, to a call that has been accepted."""
    await asyncio.Event().wait()


async def silent_when_accepted(requests: AsyncIterator[Any], context: Any) -> None:
    await context.write(pb.SegmentStreamResponse(info=INFO))
    await asyncio.Event().wait()


async def silent_after_one(requests: AsyncIterator[Any], context: Any) -> None:
    await context.write(pb.SegmentStreamResponse(info=INFO))
    async for request in requests:
        if request.HasField("frame"):
            await context.write(result(request))
            break
    await asyncio.Event().wait()


@asynccontextmanager
async def serving(answer: Callable[[AsyncIterator[Any], Any], Any]) -> AsyncIterator[str]:
    """A server whose streams are answered so, and no other call ever; its address."""

    class Servicer(pb_grpc.SegmentationServiceServicer):
        async def ListModels(self, request: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
            await asyncio.Event().wait()

        Segment = Watch = ListModels  # type: ignore[assignment]

        async def SegmentStream(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # noqa: N802
            await answer(request_iterator, context)

    server = grpc.aio.server()
    pb_grpc.add_SegmentationServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@asynccontextmanager
async def serving_no_protocol() -> AsyncIterator[str]:
    """A port where the kernel accepts connections and no process reads them, as when it is stopped."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


SILENT: dict[str, Callable[[], Any]] = {
    "no protocol": serving_no_protocol,
    "before it accepts": lambda: serving(silent),
    "after it has accepted": lambda: serving(silent_when_accepted),
    "after one frame": lambda: serving(silent_after_one),
}
