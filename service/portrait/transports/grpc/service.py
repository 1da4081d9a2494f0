"""The calls of portrait.v1.SegmentationService."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from portrait.admission.quality import Delivery
from portrait.core.segmenters import Model
from portrait.image.backgrounds import Backgrounds
from portrait.security import Security
from portrait.sessions.registry import Sessions
from portrait.transports.grpc.auth import authorization
from portrait.transports.grpc.codec import Arrival, GrpcCodec, Output, read_background, read_output, read_prior
from portrait.transports.grpc.status import aborting
from portrait.transports.grpc.stream import Stream, StreamContext, StreamSession, duration, read_config
from portrait.v1 import segmentation_pb2 as pb
from portrait.v1 import segmentation_pb2_grpc as pb_grpc


def traceparent(context: grpc.aio.ServicerContext[Any, Any]) -> str | None:
    """What the call's metadata say (W3C Trace Context); None when they say nothing."""
    value = dict(context.invocation_metadata() or ()).get("traceparent")
    return value if isinstance(value, str) else None


MAX_IN_FLIGHT = 8
"""Frames a client may usefully leave unanswered: at 30 frames per second the round trips of a link of 250 ms."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the transport takes."""

    frame_pixels: int
    still_pixels: int
    message_bytes: int
    idle_seconds: float


class SegmentationServicer(pb_grpc.SegmentationServiceServicer):
    """Turns calls into sessions."""

    def __init__(
        self, sessions: Sessions, backgrounds: Backgrounds, limits: Limits, security: Security | None = None
    ) -> None:
        self._sessions, self._backgrounds, self._limits = sessions, backgrounds, limits
        self._security = security or Security.allow_all()

    async def Segment(  # noqa: N802  the name is the contract's
        self, request: pb.SegmentRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.SegmentResponse:
        """One picture through a session of its own."""
        async with aborting(context):
            output = read_output(request.output, await read_background(request.output, self._backgrounds))
            codec = GrpcCodec(self._limits.still_pixels, self._sessions.models.pick(request.model))
            async with self._sessions.open(
                "grpc",
                codec,
                output.options,
                request.model,
                delivery=Delivery.STILL,
                traceparent=traceparent(context),
            ) as session:
                processed = await session.process(Arrival(request.picture, output, 0), time.monotonic())
            if processed.failure is not None:
                raise processed.failure
            response = pb.SegmentResponse(work_time=duration(processed.worked))
            processed.wire.picture.write(response.picture)
            return response
        raise AssertionError("aborting() has raised")

    async def ListModels(  # noqa: N802  the name is the contract's
        self,
        request: pb.ListModelsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> pb.ListModelsResponse:
        """The models sessions may ask for."""
        models = self._sessions.models
        return pb.ListModelsResponse(models=[_model(model, models.default) for model in models.by_name.values()])

    async def SegmentStream(  # type: ignore[override]  # noqa: N802  a coroutine that writes is a handler too
        self, request_iterator: AsyncIterator[pb.SegmentStreamRequest], context: StreamContext
    ) -> None:
        """One session for the length of the call."""
        async with aborting(context):
            config, output = await read_config(request_iterator, self._limits.idle_seconds, self._backgrounds)
            prior = read_prior(config.prior, self._limits.frame_pixels) if config.HasField("prior") else None
            codec = GrpcCodec(self._limits.frame_pixels, self._sessions.models.pick(config.model))
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
                stream = Stream(
                    session,
                    context,
                    config,
                    output,
                    backgrounds=self._backgrounds,
                    idle_seconds=self._limits.idle_seconds,
                )
                async with self._security.holding(authorization(context.invocation_metadata()), stream.expire):
                    await stream.run(request_iterator)

    def _info(self, session: StreamSession, config: pb.StreamConfig, output: Output) -> pb.StreamInfo:
        options = output.options
        return pb.StreamInfo(
            session_id=session.id,
            model=_model(session.model, self._sessions.models.default),
            max_pixels=self._limits.frame_pixels,
            max_message_bytes=self._limits.message_bytes,
            max_in_flight=MAX_IN_FLIGHT,
            idle_timeout=duration(self._limits.idle_seconds),
            delivery=config.delivery or pb.DELIVERY_NEWEST,
            output=pb.Output(
                mode=options.mode,
                color=options.color,
                threshold=options.threshold,
                feather=options.feather,
                framing=options.framing,
                decontaminate=options.decontaminate,
                background_name=config.output.background_name,
                format=output.format,
                mask_size=output.mask_size,
            ),
            resumed=config.HasField("prior") and session.model.stateful,
        )


def _model(model: Model, default: str) -> pb.Model:
    return pb.Model(
        name=model.name, width=model.width, height=model.height, stateful=model.stateful, default=model.name == default
    )
