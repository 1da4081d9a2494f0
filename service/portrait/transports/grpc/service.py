"""The calls of portrait.v1.SegmentationService."""

import time
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from portrait.admission.pixel_budget import PixelBudget
from portrait.admission.quality import Delivery
from portrait.core.segmenters import Model, Models
from portrait.image.backgrounds import Backgrounds
from portrait.security import Security
from portrait.sessions.registry import Sessions
from portrait.transports.grpc.auth import authorization
from portrait.transports.grpc.codec import (
    GrpcCodec,
    IncomingPicture,
    Output,
    read_background,
    read_output,
    read_prior,
)
from portrait.transports.grpc.config import GrpcConfig
from portrait.transports.grpc.status import aborting
from portrait.transports.grpc.stream import StreamCall, StreamContext, StreamSession, duration, read_config
from portrait.transports.grpc.unary import keep_until_sent, pack_response, still_share, traceparent
from portrait.transports.grpc.watch import WatchContext, Watchers
from portrait.v1 import segmentation_pb2 as pb
from portrait.v1 import segmentation_pb2_grpc as pb_grpc

MAX_IN_FLIGHT = 8
"""Frames that a client may usefully leave unanswered: 30 frames per second over a link with a round trip of 250 ms."""


class SegmentationServicer(pb_grpc.SegmentationServiceServicer):
    """Turns calls into sessions. The names of its methods are the contract's."""

    def __init__(
        self,
        config: GrpcConfig,
        sessions: Sessions,
        backgrounds: Backgrounds,
        budget: PixelBudget,
        watchers: Watchers,
        security: Security | None = None,
    ) -> None:
        self._config, self._sessions, self._backgrounds, self._budget = config, sessions, backgrounds, budget
        self._watchers, self._security = watchers, security or Security.allow_all()

    async def Segment(  # type: ignore[override]  # noqa: N802  responses may be bytes (validation.py)
        self, request: pb.SegmentRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> bytes:
        """One picture through a session of its own; the response is packed."""
        async with aborting(context, self._sessions.metrics):
            background = await read_background(request.output, self._backgrounds, self._budget)
            output = read_output(request.output, background)
            most = self._config.max_still_pixels
            codec = GrpcCodec(most, self._sessions.models.pick_still(request.model))
            with self._sessions.metrics.counting_refused("grpc"):
                webp = output.format == pb.PICTURE_FORMAT_WEBP
                share = await still_share(request.picture, self._budget, most, "picture", webp=webp)
            with share:
                async with self._sessions.open(
                    "grpc",
                    codec,
                    output.options,
                    request.model,
                    delivery=Delivery.STILL,
                    pixels=share.pixels,
                    traceparent=traceparent(context),
                ) as session:
                    processed = await session.process(IncomingPicture(request.picture, output, 0), time.monotonic())
                if processed.failure is not None:
                    raise processed.failure
                keep_until_sent(share, len(processed.wire.picture.data), context)
            return pack_response(processed.wire.picture, processed.worked)
        raise AssertionError("aborting() has raised")

    async def ListModels(  # noqa: N802
        self,
        request: pb.ListModelsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> pb.ListModelsResponse:
        """The models sessions may ask for."""
        models = self._sessions.models
        return pb.ListModelsResponse(models=[_model(model, models) for model in models.by_name.values()])

    async def SegmentStream(  # type: ignore[override]  # noqa: N802  a coroutine that writes is a handler too
        self, request_iterator: AsyncIterator[pb.SegmentStreamRequest], context: StreamContext
    ) -> None:
        """One session for the length of the call."""
        async with aborting(context, self._sessions.metrics):
            config = await read_config(request_iterator, self._config.idle_seconds)
            output = read_output(config.output, await read_background(config.output, self._backgrounds, self._budget))
            most = self._config.max_frame_pixels
            prior = read_prior(config.prior, most) if config.HasField("prior") else None
            codec = GrpcCodec(most, self._sessions.models.pick(config.model))
            delivery = Delivery.EXACT if config.delivery == pb.DELIVERY_EVERY_FRAME else Delivery.LIVE
            async with self._sessions.open(
                "grpc",
                codec,
                output.options,
                config.model,
                prior=prior,
                delivery=delivery,
                traceparent=traceparent(context),
            ) as session:
                await context.write(pb.SegmentStreamResponse(info=self._info(session, config, output)))
                stream = StreamCall(
                    session,
                    context,
                    config,
                    output,
                    read_background=lambda output: read_background(output, self._backgrounds, self._budget, ahead=True),
                    idle_seconds=self._config.idle_seconds,
                )
                async with self._security.holding(authorization(context.invocation_metadata()), stream.expire):
                    await stream.run(request_iterator)

    async def Watch(  # type: ignore[override]  # noqa: N802  a coroutine that writes is a handler too
        self, request: pb.WatchRequest, context: WatchContext
    ) -> None:
        """The results of a named stream."""
        async with aborting(context, self._sessions.metrics):
            await self._watchers.run(request, context)

    def _info(self, session: StreamSession, config: pb.StreamConfig, output: Output) -> pb.StreamInfo:
        options = output.options
        return pb.StreamInfo(
            session_id=session.id,
            model=_model(session.model, self._sessions.models),
            max_pixels=self._config.max_frame_pixels,
            max_message_bytes=self._config.max_message_bytes,
            max_in_flight=MAX_IN_FLIGHT,
            idle_timeout=duration(self._config.idle_seconds),
            delivery=config.delivery or pb.DELIVERY_NEWEST,
            output=pb.Output(
                mode=options.mode,
                color=options.color,
                threshold=options.threshold,
                feather=options.feather,
                framing=options.framing,
                decontaminate=options.decontaminate,
                margin=options.margin,
                people=options.people,
                background_name=config.output.background_name,
                format=output.format,
                mask_size=output.mask_size,
            ),
            resumed=config.HasField("prior") and session.model.stateful,
        )


def _model(model: Model, models: Models) -> pb.Model:
    return pb.Model(
        name=model.name,
        width=model.width,
        height=model.height,
        stateful=model.stateful,
        default=model.name == models.default,
        still_default=model.name == models.pick_still(None).name,
    )
