"""The Open Inference Protocol (KServe v2) over the service's sessions, for clients that know that protocol only.

A model takes `image`, UINT8 (1,H,W,3) RGB of any size or BYTES (1) of a JPEG, PNG or WebP file, and optionally `prior`,
UINT8 (1,h,w,1) of the model's size: the mask of the frame before. It gives `mask`, UINT8 (1,h,w,1). Nothing is kept
between calls. The protocol: https://github.com/kserve/open-inference-protocol
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc.aio
import numpy as np
from google.protobuf.message import DecodeError

from portrait import __version__
from portrait.admission.pixel_budget import PixelBudget
from portrait.admission.quality import Delivery
from portrait.core.compositors import Options
from portrait.core.segmenters import Model
from portrait.errors import BadOption, BadPicture
from portrait.image.frame import Mask, check_size
from portrait.kserve import inference_pb2 as pb
from portrait.kserve import inference_pb2_grpc as pb_grpc
from portrait.sessions.registry import Sessions
from portrait.transports.grpc.codec import GrpcCodec, IncomingPicture, Output
from portrait.transports.grpc.status import aborting
from portrait.transports.grpc.unary import still_share, traceparent
from portrait.transports.grpc.validation import LENGTH, Member, check_members, encode_varint, members
from portrait.v1 import segmentation_pb2 as portrait_pb

VERSION = "1"
"""Every model has this version only."""

LENGTH_BYTES = 4
"""Bytes before each element of BYTES in raw contents: its length, little-endian."""

DIMENSIONS = 8
"""Dimensions of a shape that are read; no tensor has more than four."""

MASK = Output(Options("mask"), portrait_pb.PICTURE_FORMAT_GRAY8, portrait_pb.MASK_SIZE_MODEL)

Tensor: TypeAlias = pb.ModelInferRequest.InferInputTensor
Packed: TypeAlias = list[memoryview]
"""Numbers as they came, packed varints, in one or several pieces."""

INPUTS = pb.ModelInferRequest.INPUTS_FIELD_NUMBER
CONTENTS = Tensor.CONTENTS_FIELD_NUMBER
NUMBERS = pb.InferTensorContents.UINT_CONTENTS_FIELD_NUMBER
LONG_LISTS = frozenset([pb.InferTensorContents.DESCRIPTOR.fields_by_number[NUMBERS].full_name])

CHUNK = 2**20
"""Bytes of packed numbers that are unpacked at once, so that the working memory stays small."""


class InferenceServicer(pb_grpc.GRPCInferenceServiceServicer):
    """Turns calls of the protocol into sessions. The names of its methods are the protocol's."""

    def __init__(self, sessions: Sessions, budget: PixelBudget, max_pixels: int) -> None:
        self._sessions, self._budget, self._max_pixels = sessions, budget, max_pixels

    async def ServerLive(self, request: Any, context: Any) -> pb.ServerLiveResponse:  # noqa: N802
        """Whether the process answers: it does."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> pb.ServerReadyResponse:  # noqa: N802
        """Whether it accepts sessions."""
        return pb.ServerReadyResponse(ready=not self._sessions.draining)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Any) -> pb.ModelReadyResponse:  # noqa: N802
        """Whether a model can be used."""
        known = request.name in self._sessions.models.by_name and request.version in ("", VERSION)
        return pb.ModelReadyResponse(ready=known and not self._sessions.draining)

    async def ServerMetadata(self, request: Any, context: Any) -> pb.ServerMetadataResponse:  # noqa: N802
        """The name and version of the server."""
        return pb.ServerMetadataResponse(name="portrait", version=__version__)

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ModelMetadataResponse:
        """The tensors of a model."""
        async with aborting(context, self._sessions.metrics):
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

    async def ModelInfer(  # type: ignore[override]  # noqa: N802  its requests are parsed by InferRequest.parse
        self, request: "InferRequest", context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ModelInferResponse:
        """One picture to its mask."""
        async with aborting(context, self._sessions.metrics):
            message = request.message
            model = self._pick(message.model_name, message.model_version)
            codec = GrpcCodec(self._max_pixels, model)
            with self._sessions.metrics.counting_refused("grpc"):
                picture, prior = read_inputs(request, self._max_pixels, model.width * model.height)
                share = await still_share(picture, self._budget, self._max_pixels, "image")
            with share:
                async with self._sessions.open(
                    "grpc",
                    codec,
                    MASK.options,
                    message.model_name,
                    prior=prior,
                    delivery=Delivery.STILL,
                    pixels=share.pixels,
                    traceparent=traceparent(context),
                ) as session:
                    processed = await session.process(IncomingPicture(picture, MASK, 0), time.monotonic())
            if processed.failure is not None:
                raise processed.failure
            shape = [1, model.height, model.width, 1]
            output = pb.ModelInferResponse.InferOutputTensor(name="mask", datatype="UINT8", shape=shape)
            return pb.ModelInferResponse(
                model_name=model.name,
                model_version=VERSION,
                id=message.id,
                outputs=[output],
                raw_output_contents=[processed.wire.picture.data],
            )
        raise AssertionError("aborting() has raised")

    def _pick(self, name: str, version: str) -> Model:
        if version not in ("", VERSION):
            raise BadOption("model_version", f"got {version!r}, expected {VERSION!r}")
        return self._sessions.models.pick_still(name)


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A ModelInferRequest whose `uint_contents` have been left packed.

    The protobuf parser would take 0.2 s for 30 million of them, during which nothing else in the process runs; numpy
    unpacks them on the session's thread without holding Python's lock.
    """

    message: pb.ModelInferRequest
    """Without packed `uint_contents`."""
    packed: Sequence[Packed]
    """The `uint_contents` of each input."""

    @classmethod
    def parse(cls, data: bytes) -> "InferRequest":
        """Parse a request.

        Raises:
            BadMessage: more members than a request can have.
            DecodeError: not a ModelInferRequest.
        """
        check_members(data, pb.ModelInferRequest.DESCRIPTOR, LONG_LISTS)
        view = memoryview(data)
        packed: list[Packed] = []
        pieces: list[bytes | memoryview] = []
        for member in members(view):
            if member.number == INPUTS and member.wire == LENGTH:
                packed.append([])
                pieces.append(_without(view, member, (CONTENTS, NUMBERS), packed[-1]))
            else:
                pieces.append(view[member.start : member.end])
        if not any(packed):
            pieces = [data]
        return cls(pb.ModelInferRequest.FromString(b"".join(pieces)), packed)


def _without(view: memoryview, member: Member, path: tuple[int, ...], removed: Packed) -> bytes:
    """A member that is a message, encoded anew without the members that `path` leads to; those go to `removed`."""
    if member.end > len(view):
        raise DecodeError("an input is cut short")
    inner = view[member.value : member.end]
    pieces: list[bytes | memoryview] = []
    for part in members(inner):
        if part.number != path[0] or part.wire != LENGTH:
            pieces.append(inner[part.start : part.end])
        elif part.end > len(inner):
            raise DecodeError("the contents of an input are cut short")
        elif len(path) == 1:
            removed.append(inner[part.value : part.end])
        else:
            pieces.append(_without(inner, part, path[1:], removed))
    body = b"".join(pieces)
    return encode_varint(member.number << 3 | LENGTH) + encode_varint(len(body)) + body


@dataclass(frozen=True, slots=True)
class TensorPicture:
    """The picture of a request, in the members of portrait.v1.Picture."""

    format: "portrait_pb.PictureFormat.ValueType"
    width: int
    height: int
    contents: bytes | Packed
    """The bytes, or numbers of which each is one byte."""

    @property
    def data(self) -> bytes:
        """The bytes; numbers are unpacked, which is work for the session's thread.

        Raises:
            BadPicture: not as many numbers as the size asks for, or one above 255.
        """
        if isinstance(self.contents, bytes):
            return self.contents
        return unpack_uint8(self.contents, self.width * self.height * 3, "image")


def read_inputs(request: InferRequest, max_pixels: int, max_prior_pixels: int) -> tuple[TensorPicture, Mask | None]:
    """The picture and the prior of a request, of at most this many pixels each.

    Raises:
        BadOption: an input or output of another name, or one too many.
        BadPicture: a tensor of another type or shape than expected, or bytes that do not fit it.
    """
    message = request.message
    raw, tensors = message.raw_input_contents, message.inputs
    if raw and len(raw) != len(tensors):
        raise BadOption("raw_input_contents", f"got {len(raw)} for {len(tensors)} inputs, expected one for each")
    names = [tensor.name for tensor in tensors]
    if len(set(names)) != len(names) or not {"image"} <= set(names) <= {"image", "prior"}:
        raise BadOption("inputs", f"got {names}, expected image and optionally prior")
    if any(output.name != "mask" for output in message.outputs):
        raise BadOption("outputs", f"got {[output.name for output in message.outputs]}, expected mask")
    contents: dict[str, tuple[Tensor, bytes | Packed]] = {
        tensor.name: (tensor, raw[i] if raw else _numbers(tensor, request.packed[i]))
        for i, tensor in enumerate(tensors)
    }
    picture = _read_image(*contents["image"], max_pixels)
    return picture, _read_prior(*contents["prior"], max_prior_pixels) if "prior" in contents else None


def _numbers(tensor: Tensor, packed: Packed) -> Packed:
    """The numbers of a tensor, packed; those that came one by one after the others."""
    single = b"".join(map(encode_varint, tensor.contents.uint_contents))
    return [*packed, memoryview(single)] if single else packed


def _read_image(tensor: Tensor, contents: bytes | Packed, max_pixels: int) -> TensorPicture:
    shape = list(tensor.shape[:DIMENSIONS])
    if tensor.datatype == "BYTES" and shape in ([1], [1, 1]):
        return TensorPicture(portrait_pb.PICTURE_FORMAT_JPEG, 0, 0, _one_string(tensor, contents))
    height, width = _read_size(tensor, 3, max_pixels, "UINT8 (1,H,W,3) or BYTES (1)")
    _check_length(tensor, contents, height * width * 3)
    return TensorPicture(portrait_pb.PICTURE_FORMAT_RGB24, width, height, contents)


def _read_prior(tensor: Tensor, contents: bytes | Packed, max_pixels: int) -> Mask:
    height, width = _read_size(tensor, 1, max_pixels, "UINT8 (1,h,w,1)")
    _check_length(tensor, contents, height * width)
    data = contents if isinstance(contents, bytes) else unpack_uint8(contents, height * width, "prior")
    return Mask(np.frombuffer(data, np.uint8).reshape(height, width))


def _read_size(tensor: Tensor, channels: int, max_pixels: int, expected: str) -> tuple[int, int]:
    """(height, width) of a tensor of pixels, with or without the batch's dimension."""
    shape = list(tensor.shape[:DIMENSIONS])
    if len(shape) == 4 and shape[0] == 1:
        shape = shape[1:]
    if tensor.datatype != "UINT8" or len(shape) != 3 or shape[2] != channels:
        got = f"{tensor.datatype or 'no type'} {tuple(tensor.shape[:DIMENSIONS])}"
        raise BadPicture(tensor.name, f"got {got}, expected {expected}")
    check_size(shape[1], shape[0], max_pixels, tensor.name)
    return shape[0], shape[1]


def _check_length(tensor: Tensor, contents: bytes | Packed, expected: int) -> None:
    """Refuse contents that cannot be `expected` bytes; a number of 8 bits takes one byte or two when it is packed."""
    if isinstance(contents, bytes):
        fits, got = len(contents) == expected, len(contents)
    else:
        got = sum(map(len, contents))
        fits = expected <= got <= 2 * expected
    if not fits:
        raise BadPicture(tensor.name, f"got {got} bytes for {tuple(tensor.shape[:DIMENSIONS])}, expected {expected}")


def _one_string(tensor: Tensor, contents: bytes | Packed) -> bytes:
    if not isinstance(contents, bytes):
        if len(tensor.contents.bytes_contents) != 1:
            raise BadPicture(tensor.name, f"got {len(tensor.contents.bytes_contents)} elements, expected 1")
        return tensor.contents.bytes_contents[0]
    length = int.from_bytes(contents[:LENGTH_BYTES], "little")
    if len(contents) != LENGTH_BYTES + length:
        raise BadPicture(
            tensor.name, f"got {len(contents)} bytes, expected {LENGTH_BYTES} of a length and as many as they say"
        )
    return contents[LENGTH_BYTES:]


def unpack_uint8(packed: Packed, expected: int, field: str) -> bytes:
    """The bytes that packed varints (protobuf.dev, Encoding) of 0 to 255 stand for.

    One of 0 to 127 is a byte; one of 128 to 255 is two, the second of which is 1.

    Raises:
        BadPicture: not `expected` numbers, or one above 255; names `field`.
    """
    unpacked = np.empty(expected, np.uint8)
    done = 0
    for piece in packed:
        varints = np.frombuffer(piece, np.uint8)
        at = 0
        while at < len(varints):
            chunk = varints[at : at + CHUNK]
            if len(chunk) == CHUNK and chunk[-1] > 127:
                chunk = chunk[:-1]  # its second byte is in the next chunk
            at += len(chunk)
            starts = np.empty(len(chunk), bool)
            starts[0], starts[1:] = True, chunk[:-1] < 128
            numbers, seconds = chunk[starts], chunk[~starts]
            long = numbers > 127
            if seconds.max(initial=0) > 1 or np.count_nonzero(long) != len(seconds):
                raise BadPicture(field, "got a number above 255 as UINT8, expected 0 to 255")
            numbers[long] &= 0x7F | seconds << 7
            if done + len(numbers) > expected:
                raise BadPicture(field, f"got more than {expected} numbers, expected as many")
            unpacked[done : done + len(numbers)] = numbers
            done += len(numbers)
    if done != expected:
        raise BadPicture(field, f"got {done} numbers, expected {expected}")
    return unpacked.tobytes()
