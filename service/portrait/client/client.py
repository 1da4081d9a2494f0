"""Client and Stream."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from portrait.client.values import ClientError, Picture, Reply
from portrait.v1 import segmentation_pb2 as pb
from portrait.v1 import segmentation_pb2_grpc as pb_grpc

MAX_IN_FLIGHT = 2
"""Frames sent and not yet answered: one being worked on, one on its way. More would only grow old."""

# See WINDOW_OPTIONS of the server: the client's end of the same windows.
OPTIONS: list[tuple[str, Any]] = [
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.write_buffer_size", 65536),
    ("grpc.max_receive_message_length", -1),
]


class Stream:
    """One live stream with a prior of its own. Opened by `Client.open_stream`."""

    def __init__(self, call: Any, info: pb.StreamInfo) -> None:
        self.info = info
        """What the server has put in force."""
        self._call = call

    async def send(self, picture: Picture, frame_id: int, timestamp_us: int = 0) -> None:
        """Send a frame.

        Raises:
            ClientError: the stream has ended.
        """
        frame = pb.Frame(id=frame_id, timestamp_us=timestamp_us, picture=picture.message)
        await self._write(pb.SegmentStreamRequest(frame=frame))

    async def change(self, output: Mapping[str, Any] | None = None, reset_prior: bool = False) -> None:
        """Let the frames that follow look otherwise, or forget the prior.

        `output` are the fields of portrait.v1.Output; they replace the ones in force whole.
        """
        control = pb.Control(reset_prior=reset_prior)
        if output is not None:
            control.output.CopyFrom(make_output(**output))
        await self._write(pb.SegmentStreamRequest(control=control))

    async def finish(self) -> None:
        """Say that no frame follows; the replies to the ones sent still come."""
        await self._call.done_writing()

    async def receive(self) -> Reply | None:
        """The next reply; None after the last.

        Raises:
            ClientError: the stream was refused or cut.
        """
        message = await _reading(self._call)
        return None if message is None else make_reply(message.result)

    async def __aiter__(self) -> AsyncIterator[Reply]:
        while (reply := await self.receive()) is not None:
            yield reply

    async def _write(self, request: pb.SegmentStreamRequest) -> None:
        try:
            await self._call.write(request)
        except grpc.aio.AioRpcError as error:
            raise ClientError.from_rpc(error) from None
        except asyncio.InvalidStateError:
            await _reading(self._call)  # the call is over: this raises why
            raise ClientError("CANCELLED", "the stream is over") from None


class Client:
    """A connection to one service.

    Args:
        target: `host:port`.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> "Client":
        """Open the connection; the first call connects."""
        self._channel = grpc.aio.insecure_channel(self._target, options=OPTIONS)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it; open streams end."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def models(self) -> list[pb.Model]:
        """The models a stream may ask for."""
        try:
            return list((await self._stub.ListModels(pb.ListModelsRequest())).models)
        except grpc.aio.AioRpcError as error:
            raise ClientError.from_rpc(error) from None

    async def segment(self, picture: Picture, *, model: str = "", timeout: float | None = None, **output: Any) -> Reply:
        """One picture. `output` are the fields of portrait.v1.Output: mode, color, background_name, ...

        Raises:
            ClientError: refused or failed.
        """
        request = pb.SegmentRequest(picture=picture.message, output=make_output(**output), model=model)
        try:
            response = await self._stub.Segment(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise ClientError.from_rpc(error) from None
        return Reply(0, 0, response.picture, None, 0, 0.0, response.work_time.ToMicroseconds() / 1e6)

    @asynccontextmanager
    async def open_stream(self, *, model: str = "", every_frame: bool = False, **output: Any) -> AsyncIterator[Stream]:
        """A stream for the length of the block; it is cut at the end, finished or not.

        Raises:
            ClientError: refused.
        """
        delivery = pb.DELIVERY_EVERY_FRAME if every_frame else pb.DELIVERY_NEWEST
        config = pb.StreamConfig(output=make_output(**output), model=model, delivery=delivery)
        call = self._stub.SegmentStream()
        try:
            await call.write(pb.SegmentStreamRequest(config=config))
            first = await _reading(call)
            if first is None:
                raise ClientError("UNAVAILABLE", "the stream ended before it began")
            yield Stream(call, first.info)
        except grpc.aio.AioRpcError as error:
            raise ClientError.from_rpc(error) from None
        finally:
            call.cancel()

    async def stream(
        self,
        pictures: AsyncIterable[Picture],
        *,
        model: str = "",
        every_frame: bool = False,
        max_in_flight: int = MAX_IN_FLIGHT,
        **output: Any,
    ) -> AsyncIterator[Reply]:
        """Send pictures, numbered from 0, and give the replies as they come.

        Never more than `max_in_flight` frames are unanswered, so that none grows old on the way. Close the iterator
        (`contextlib.aclosing`) when leaving it early.

        Raises:
            ClientError: refused or cut.
        """
        window = asyncio.Semaphore(max_in_flight)
        async with self.open_stream(model=model, every_frame=every_frame, **output) as stream:
            sender = asyncio.create_task(_send_all(stream, pictures, window), name="portrait-client-sender")
            try:
                async for reply in stream:
                    for _ in range(1 + reply.dropped):
                        window.release()
                    yield reply
                await sender
            finally:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)

    @property
    def _stub(self) -> Any:
        if self._channel is None:
            raise RuntimeError("the client is not open; use `async with Client(...)`")
        return pb_grpc.SegmentationServiceStub(self._channel)


async def _send_all(stream: Stream, pictures: AsyncIterable[Picture], window: asyncio.Semaphore) -> None:
    frame_id = 0
    async for picture in pictures:
        await window.acquire()
        await stream.send(picture, frame_id)
        frame_id += 1
    await stream.finish()


async def _reading(call: Any) -> pb.SegmentStreamResponse | None:
    try:
        message = await call.read()
    except grpc.aio.AioRpcError as error:
        raise ClientError.from_rpc(error) from None
    if message is grpc.aio.EOF:
        return None
    assert isinstance(message, pb.SegmentStreamResponse)
    return message


def make_output(**fields: Any) -> pb.Output:
    """An Output message; a TypeError for a field that is none."""
    try:
        return pb.Output(**fields)
    except ValueError as error:
        raise TypeError(f"unknown output option: {error}") from error


def make_reply(result: pb.FrameResult) -> Reply:
    """A Reply of a message."""
    return Reply(
        id=result.id,
        timestamp_us=result.timestamp_us,
        picture=result.picture,
        error=ClientError.from_status(result.error) if result.HasField("error") else None,
        dropped=result.dropped,
        wait_seconds=result.wait_time.ToMicroseconds() / 1e6,
        work_seconds=result.work_time.ToMicroseconds() / 1e6,
    )
