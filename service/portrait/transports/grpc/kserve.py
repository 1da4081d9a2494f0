"""The Open Inference Protocol (KServe v2) over the same sessions: its clients get masks without knowing of us.

A model takes `image`, UINT8 (1,H,W,3) RGB of any size or BYTES (1) of a JPEG, PNG or WebP file, and optionally `prior`,
UINT8 (1,h,w,1) of the model's size: the mask of the frame before. It gives `mask`, UINT8 (1,h,w,1). Nothing is kept
between calls. The protocol: https://github.com/kserve/open-inference-protocol
"""

import time
from typing import Any

import grpc.aio
import numpy as np

from portrait import __version__
from portrait.admission.quality import Delivery
from portrait.core.compositors import Options
from portrait.core.segmenters import Model
from portrait.errors import BadOption, BadPicture
from portrait.image.frame import check_size
from portrait.image.mask import Mask
from portrait.kserve import inference_pb2 as pb
from portrait.kserve import inference_pb2_grpc as pb_grpc
from portrait.sessions.registry import Sessions
from portrait.transports.grpc.codec import Arrival, GrpcCodec, Output
from portrait.transports.grpc.service import traceparent
from portrait.transports.grpc.status import aborting
from portrait.v1 import segmentation_pb2 as portrait_pb

VERSION = "1"
"""Every model has this version only."""

LENGTH = 4
"""Bytes before each element of BYTES in raw contents: its length, little-endian."""

DIMENSIONS = 8
"""Of a shape are looked at; no tensor has more than four."""

MASK = Output(Options("mask"), portrait_pb.PICTURE_FORMAT_GRAY8, portrait_pb.MASK_SIZE_MODEL)

Tensor = pb.ModelInferRequest.InferInputTensor


class InferenceServicer(pb_grpc.GRPCInferenceServiceServicer):
    """Turns calls of the protocol into sessions. The names of its methods are the protocol's."""

    def __init__(self, sessions: Sessions, max_pixels: int) -> None:
        self._sessions, self._max_pixels = sessions, max_pixels

    async def ServerLive(self, request: Any, context: Any) -> pb.ServerLiveResponse:  # noqa: N802
        """Whether the process answers: it does."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> pb.ServerReadyResponse:  # noqa: N802
        """Whether it takes work."""
        return pb.ServerReadyResponse(ready=not self._sessions.draining)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Any) -> pb.ModelReadyResponse:  # noqa: N802
        """Whether a model can be asked."""
        known = request.name in self._sessions.models.by_name and request.version in ("", VERSION)
        return pb.ModelReadyResponse(ready=known and not self._sessions.draining)

    async def ServerMetadata(self, request: Any, context: Any) -> pb.ServerMetadataResponse:  # noqa: N802
        """What runs here."""
        return pb.ServerMetadataResponse(name="portrait", version=__version__)

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ModelMetadataResponse:
        """The tensors of a model."""
        async with aborting(context):
            model = self._pick(request.name, request.version)
            tensor = pb.ModelMetadataResponse.TensorMetadata
            mask = [1, model.height, model.width, 1]
            inputs = [tensor(name="image", datatype="UINT8", shape=[1, -1, -1, 3])]
            if model.stateful:
                inputs.append(tensor(name="prior", datatype="UINT8", shape=mask))
            outputs = [tensor(name="mask", datatype="UINT8", shape=mask)]
            return pb.ModelMetadataResponse(
                name=model.name, versions=[VERSION], platform=model.runtime, inputs=inputs, outputs=outputs
            )
        raise AssertionError("aborting() has raised")

    async def ModelInfer(  # noqa: N802
        self, request: pb.ModelInferRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ModelInferResponse:
        """One picture to its mask."""
        async with aborting(context):
            model = self._pick(request.model_name, request.model_version)
            picture, prior = read_inputs(request, self._max_pixels)
            codec = GrpcCodec(self._max_pixels, model)
            async with self._sessions.open(
                "grpc",
                codec,
                MASK.options,
                model.name,
                prior=prior,
                delivery=Delivery.STILL,
                traceparent=traceparent(context),
            ) as session:
                processed = await session.process(Arrival(picture, MASK, 0), time.monotonic())
            if processed.failure is not None:
                raise processed.failure
            shape = [1, model.height, model.width, 1]
            output = pb.ModelInferResponse.InferOutputTensor(name="mask", datatype="UINT8", shape=shape)
            return pb.ModelInferResponse(
                model_name=model.name,
                model_version=VERSION,
                id=request.id,
                outputs=[output],
                raw_output_contents=[processed.wire.picture.data],
            )
        raise AssertionError("aborting() has raised")

    def _pick(self, name: str, version: str) -> Model:
        if version not in ("", VERSION):
            raise BadOption("model_version", f"unknown version {version!r}; expected {VERSION!r}")
        return self._sessions.models.pick(name)


def read_inputs(request: pb.ModelInferRequest, max_pixels: int) -> tuple[portrait_pb.Picture, Mask | None]:
    """The picture and the prior of a request.

    Raises:
        BadOption: an input or output of another name, or one too many.
        BadPicture: a tensor of another type or shape than expected, or bytes that do not fit it.
    """
    raw, tensors = request.raw_input_contents, request.inputs
    if raw and len(raw) != len(tensors):
        raise BadOption("raw_input_contents", f"{len(raw)} came for {len(tensors)} inputs; expected as many")
    contents = {tensor.name: (tensor, raw[i] if raw else None) for i, tensor in enumerate(tensors)}
    if len(contents) != len(tensors) or not {"image"} <= contents.keys() <= {"image", "prior"}:
        names = [tensor.name for tensor in tensors]
        raise BadOption("inputs", f"{names} came; expected image and optionally prior")
    if any(output.name != "mask" for output in request.outputs):
        raise BadOption("outputs", f"{[output.name for output in request.outputs]} came; expected mask")
    picture = _read_image(*contents["image"], max_pixels)
    return picture, _read_prior(*contents["prior"], max_pixels) if "prior" in contents else None


def _read_image(tensor: Tensor, raw: bytes | None, max_pixels: int) -> portrait_pb.Picture:
    shape = list(tensor.shape[:DIMENSIONS])
    if tensor.datatype == "BYTES" and shape in ([1], [1, 1]):
        data = _one_string(tensor, raw)
        return portrait_pb.Picture(format=portrait_pb.PICTURE_FORMAT_JPEG, data=data)
    height, width = _read_size(tensor, 3, max_pixels, "UINT8 (1,H,W,3) or BYTES (1)")
    data = _read_bytes(tensor, raw, height * width * 3)
    return portrait_pb.Picture(format=portrait_pb.PICTURE_FORMAT_RGB24, width=width, height=height, data=data)


def _read_prior(tensor: Tensor, raw: bytes | None, max_pixels: int) -> Mask:
    height, width = _read_size(tensor, 1, max_pixels, "UINT8 (1,h,w,1)")
    values = np.frombuffer(_read_bytes(tensor, raw, height * width), np.uint8)
    return Mask(values.reshape(height, width))


def _read_size(tensor: Tensor, channels: int, max_pixels: int, expected: str) -> tuple[int, int]:
    """(height, width) of a tensor of pixels, with or without the batch's dimension."""
    shape = list(tensor.shape[:DIMENSIONS])
    if len(shape) == 4 and shape[0] == 1:
        shape = shape[1:]
    if tensor.datatype != "UINT8" or len(shape) != 3 or shape[2] != channels:
        came = f"{tensor.datatype or 'no type'} {tuple(tensor.shape[:DIMENSIONS])}"
        raise BadPicture(tensor.name, f"{came} came; expected {expected}")
    check_size(shape[1], shape[0], max_pixels, tensor.name)
    return shape[0], shape[1]


def _read_bytes(tensor: Tensor, raw: bytes | None, expected: int) -> bytes:
    data = _packed(tensor) if raw is None else raw
    if len(data) != expected:
        raise BadPicture(tensor.name, f"{len(data)} bytes for {tuple(tensor.shape)}; expected {expected}")
    return data


def _packed(tensor: Tensor) -> bytes:
    numbers = np.array(tensor.contents.uint_contents, np.uint32)  # a sixth of the time that bytes() takes
    if numbers.size and numbers.max() > 255:
        raise BadPicture(tensor.name, f"{numbers.max()} came as UINT8; expected 0 to 255")
    return numbers.astype(np.uint8).tobytes()


def _one_string(tensor: Tensor, raw: bytes | None) -> bytes:
    if raw is None:
        if len(tensor.contents.bytes_contents) != 1:
            raise BadPicture(tensor.name, f"{len(tensor.contents.bytes_contents)} elements came; expected 1")
        return tensor.contents.bytes_contents[0]
    length = int.from_bytes(raw[:LENGTH], "little")
    if len(raw) != LENGTH + length:
        raise BadPicture(tensor.name, f"{len(raw)} bytes came; expected {LENGTH} of a length and as many as they say")
    return raw[LENGTH:]
