"""Client: the calls of the service, with asyncio."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, Unpack

import grpc
import grpc.aio

from portrait_client.failover import Failover, Frames, Timeouts
from portrait_client.flow_control import FlowControl
from portrait_client.grpc_call import StreamCall
from portrait_client.stream import Stream, make_output, make_prior, make_reply
from portrait_client.types import Array, ClientError, OutputFields, Picture, Reply, Tls
from portrait_client.v1 import segmentation_pb2 as pb
from portrait_client.v1 import segmentation_pb2_grpc as pb_grpc

START_IN_FLIGHT = 2
"""Unanswered frames at first: one in work, one on its way."""

MOST_IN_FLIGHT = 64
"""Unanswered frames at most, whatever a server allows."""

PRIOR_EVERY = 15
"""Every how many results one carries its prior, kept in case the stream is lost: half a second of video."""

# See WINDOW_OPTIONS of the server: the client's side of the same windows. A subchannel pool of its own gives every
# stream a connection of its own, so that a load balancer can place each.
OPTIONS: list[tuple[str, Any]] = [
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 262_144),
    ("grpc.http2.write_buffer_size", 65536),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]


class Client:
    """A connection to one service, or to the replicas of one.

    Args:
        targets: `host:port`. With several, a stream whose server fails, stops or is silent continues at the next one.
        token: a bearer token, where the service asks for one.
        tls: None for a service without TLS.

    Raises:
        TypeError, ValueError: no target, one of another form, or a token that no header can carry.
    """

    def __init__(self, *targets: str, token: str | None = None, tls: Tls | None = None) -> None:
        if not targets:
            raise TypeError("target: got none, expected host:port")
        for target in targets:
            _check_target(target)
        if token is not None and not (token.isascii() and token.isprintable()):
            # Such as one read from a file with its line break.
            raise ValueError("token: got a line break or a character that is not ASCII, expected printable ASCII")
        self._targets, self._tls = targets, tls
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> "Client":
        """Open the connection; the first call connects."""
        self._channel = self._open_channel(self._targets[0])
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it. Streams have connections of their own and end with their blocks."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def models(self, *, timeout: float | None = None) -> list[pb.Model]:
        """The models a stream may ask for. `timeout` in seconds."""
        try:
            return list((await self._stub.ListModels(pb.ListModelsRequest(), **self._call(timeout))).models)
        except grpc.aio.AioRpcError as error:
            raise ClientError.from_rpc(error) from None

    async def segment(
        self,
        frame: Picture | Array,
        *,
        model: str = "",
        timeout: float | None = None,
        **output: Unpack[OutputFields],
    ) -> Reply:
        """One picture, or pixels (H, W, 3) uint8 RGB. `timeout` in seconds.

        Raises:
            ClientError: refused, failed or not in time.
        """
        request = pb.SegmentRequest(picture=Picture.of(frame).message, output=make_output(output), model=model)
        try:
            response = await self._stub.Segment(request, **self._call(timeout))
        except grpc.aio.AioRpcError as error:
            raise ClientError.from_rpc(error) from None
        return make_reply(pb.FrameResult(picture=response.picture, work_time=response.work_time))

    @asynccontextmanager
    async def open_stream(
        self,
        *,
        model: str = "",
        every_frame: bool = False,
        prior: Array | pb.Picture | None = None,
        prior_every: int = 0,
        target: str | None = None,
        reply_seconds: float | None = None,
        **output: Unpack[OutputFields],
    ) -> AsyncIterator[Stream]:
        """A stream for the length of the block; it is cut at the end, finished or not.

        A connection that fails before the server has sent anything is tried once more.

        Args:
            prior: the last mask of a stream elsewhere, (H, W) uint8 of the model's size.
            prior_every: every how many results one carries its prior; 0: none does.
            target: one of the client's; the first by default.
            reply_seconds: how long the server may take to accept the stream; None: as long as it likes.

        Raises:
            ClientError: refused, or not accepted in time.
        """
        config = pb.StreamConfig(
            output=make_output(output),
            model=model,
            delivery=pb.DELIVERY_EVERY_FRAME if every_frame else pb.DELIVERY_NEWEST,
            prior=None if prior is None else make_prior(prior),
            prior_every=prior_every,
        )
        async with AsyncExitStack() as stack:
            target = target or self._targets[0]
            try:
                stream = await stack.enter_async_context(self._begin(target, config, reply_seconds))
            except ClientError as error:
                # Not refused by the server: the kernel gave the connection to a worker that had just died, or a load
                # balancer to a replica. It has been reset by now, and the next connection goes elsewhere.
                if error.code != "UNAVAILABLE" or error.reason:
                    raise
                stream = await stack.enter_async_context(self._begin(target, config, reply_seconds))
            yield stream

    @asynccontextmanager
    async def _begin(self, target: str, config: pb.StreamConfig, reply_seconds: float | None) -> AsyncIterator[Stream]:
        async with self._open_channel(target) as channel:
            call = StreamCall(pb_grpc.SegmentationServiceStub(channel).SegmentStream(**self._call(None)))
            try:
                try:
                    async with asyncio.timeout(reply_seconds):
                        await call.write(pb.SegmentStreamRequest(config=config))
                        first = await call.read()
                except TimeoutError:
                    reason = f"{target} has not accepted the stream within {reply_seconds:g} s"
                    raise ClientError("DEADLINE_EXCEEDED", reason) from None
                if first is None:
                    raise ClientError("UNAVAILABLE", "the stream ended before it began")
                yield Stream(call, first.info)
            finally:
                await call.cancel()

    async def stream(
        self,
        frames: Frames,
        *,
        model: str = "",
        every_frame: bool = False,
        max_in_flight: int = MOST_IN_FLIGHT,
        reconnect_seconds: float = 10.0,
        reply_seconds: float = 10.0,
        **output: Unpack[OutputFields],
    ) -> AsyncGenerator[Reply, None]:
        """Send frames, numbered from 0, and give the replies as they come.

        Frames are pictures or pixels, (H, W, 3) uint8 RGB. As few are unanswered as keep the server busy, and never
        more than `max_in_flight` or than the server finds useful. A stream whose server fails, stops, or does not
        accept it or answer a frame within `reply_seconds` continues at the next target from the last mask it got.
        After `reconnect_seconds` without a reply the error is raised, with 0 at once; time spent waiting for `frames`
        does not count. Close the iterator (`contextlib.aclosing`) when leaving it early.

        Raises:
            ClientError: refused or lost.
            TypeError: a frame that is neither, or an output option that is none.
            Exception: whatever `frames` raises.
        """
        targets = itertools.cycle(self._targets)

        def open_stream(prior: pb.Picture | None) -> Any:
            return self.open_stream(
                model=model,
                every_frame=every_frame,
                prior=prior,
                prior_every=PRIOR_EVERY if reconnect_seconds else 0,
                target=next(targets),
                reply_seconds=reply_seconds,
                **output,
            )

        flow, timeouts = FlowControl(START_IN_FLIGHT, max_in_flight), Timeouts(reconnect_seconds, reply_seconds)
        failover = Failover(frames, open_stream, flow, timeouts, every_frame)
        async with aclosing(failover.replies()) as replies:
            async for reply in replies:
                yield reply

    async def watch(
        self,
        stream: str,
        *,
        composite: bool = False,
        format: "pb.PictureFormat.ValueType" = pb.PICTURE_FORMAT_UNSPECIFIED,  # noqa: A002  as in OutputFields
    ) -> AsyncGenerator[Reply, None]:
        """The results of a named stream, a camera or one that is published over WHIP, as they come; the newest wins.

        They are masks, or with `composite` the composed pictures; `id` numbers them from 1. A camera is connected for
        it. Close the iterator (`contextlib.aclosing`) when leaving it early.

        Raises:
            ClientError: there is no such stream now (NOT_PUBLISHED), it has ended, or one more viewer does not fit.
        """
        output = pb.WATCH_OUTPUT_COMPOSITE if composite else pb.WATCH_OUTPUT_MASK
        request = pb.WatchRequest(stream=stream, output=output, format=format)
        call = self._stub.Watch(request, **self._call(None))
        try:
            async for response in call:
                yield make_reply(response.result)
        except grpc.aio.AioRpcError as error:
            raise ClientError.from_rpc(error) from None
        finally:
            call.cancel()

    @property
    def _stub(self) -> Any:
        if self._channel is None:
            raise RuntimeError("the client is not open; use `async with Client(...)`")
        return pb_grpc.SegmentationServiceStub(self._channel)

    def _call(self, timeout: float | None) -> dict[str, Any]:
        return {"timeout": timeout, "metadata": self._metadata}

    def _open_channel(self, target: str) -> grpc.aio.Channel:
        if self._tls is None:
            return grpc.aio.insecure_channel(target, options=OPTIONS)
        credentials = grpc.ssl_channel_credentials(self._tls.roots, self._tls.key, self._tls.certificate)
        return grpc.aio.secure_channel(target, credentials, options=OPTIONS)


def _check_target(target: str) -> None:
    if not isinstance(target, str):
        raise TypeError(f"target: got {target!r}, expected host:port, each as an argument of its own")
    # gRPC would look up "http" as a name, and try port 443 where there is no port.
    if target.startswith(("http:", "https:")) or ":" not in target:
        raise ValueError(f"target: got {target!r}, expected host:port")
