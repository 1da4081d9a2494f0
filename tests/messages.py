"""Messages to trouble the service with: seeds of every call, broken ones, and well-formed ones by chance."""

import random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import strategies as st

from portrait.kserve import inference_pb2 as kserve
from portrait.v1 import segmentation_pb2 as pb
from tests.calls import i420, jpeg, rgb24
from tests.embedded import SIDE
from tests.mutations import mutated_bytes
from tests.people import room

PICTURES = [make(room(48, 32)).message for make in (jpeg, i420, rgb24)]
PRIOR = pb.Picture(format=pb.PICTURE_FORMAT_GRAY8, width=SIDE, height=SIDE, data=bytes(SIDE**2))
OUTPUTS = [
    pb.Output(),
    pb.Output(mode="color", color="#112233"),
    pb.Output(mode="image", background_name="dusk", format=pb.PICTURE_FORMAT_PNG),
    pb.Output(mode="alpha", format=pb.PICTURE_FORMAT_GRAY1, mask_size=pb.MASK_SIZE_FRAME),
]
STILLS = [pb.SegmentRequest(picture=picture, output=output) for picture in PICTURES for output in OUTPUTS]
CONFIGS = [
    pb.StreamConfig(output=output, delivery=pb.DELIVERY_EVERY_FRAME, prior=PRIOR, prior_every=2) for output in OUTPUTS
]
FRAMES = [pb.Frame(id=1, timestamp_us=-1, picture=picture) for picture in PICTURES]
CONTROLS = [pb.Control(output=output, reset_prior=True, send_prior=True) for output in OUTPUTS]
MESSAGES = [
    *(pb.SegmentStreamRequest(frame=frame) for frame in FRAMES),
    *(pb.SegmentStreamRequest(control=control) for control in CONTROLS),
]
TENSOR = kserve.ModelInferRequest.InferInputTensor
INFERS = [
    kserve.ModelInferRequest(
        model_name="portrait",
        inputs=[TENSOR(name="image", datatype="UINT8", shape=[1, 32, 48, 3])],
        raw_input_contents=[PICTURES[2].data],
    ),
    kserve.ModelInferRequest(
        inputs=[TENSOR(name="image", datatype="BYTES", shape=[1])],
        raw_input_contents=[len(PICTURES[0].data).to_bytes(4, "little") + PICTURES[0].data],
    ),
]

INFERENCE = "/inference.GRPCInferenceService/"
UNARY: dict[str, list[Any]] = {
    "/portrait.v1.SegmentationService/Segment": STILLS,
    "/portrait.v1.SegmentationService/ListModels": [pb.ListModelsRequest()],
    INFERENCE + "ServerLive": [kserve.ServerLiveRequest()],
    INFERENCE + "ServerReady": [kserve.ServerReadyRequest()],
    INFERENCE + "ServerMetadata": [kserve.ServerMetadataRequest()],
    INFERENCE + "ModelReady": [kserve.ModelReadyRequest(name="x")],
    INFERENCE + "ModelMetadata": [kserve.ModelMetadataRequest(name="portrait")],
    INFERENCE + "ModelInfer": INFERS,
    "/grpc.health.v1.Health/Check": [health_pb2.HealthCheckRequest(service="portrait.v1.SegmentationService")],
}
"""Calls of one message and one answer."""

SEGMENT_STREAM = "/portrait.v1.SegmentationService/SegmentStream"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
STREAMS: dict[str, list[Any]] = {
    SEGMENT_STREAM: MESSAGES,
    REFLECTION: [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="portrait.v1.Frame"),
    ],
    "/grpc.health.v1.Health/Watch": [health_pb2.HealthCheckRequest()],
}
"""Calls of many answers; all but the last take many messages as well."""


def opening(path: str, dice: random.Random) -> list[Any]:
    """What a call of `path` begins with."""
    return [pb.SegmentStreamRequest(config=dice.choice(CONFIGS))] if path == SEGMENT_STREAM else []


def mutated(message: Any, dice: random.Random) -> bytes:
    """The message's bytes, more often than not with something wrong with them."""
    data: bytes = message.SerializeToString()
    return mutated_bytes(data, dice) if dice.random() < 0.8 else data


WORDS = [
    "", "mask", "alpha", "blur", "color", "image", "cutout", "pixelate", "largest", "#00ff00", "dusk", "portrait",
    "image", "prior", "mask", "UINT8", "BYTES", "FP32", "1",
]  # fmt: skip
SIZES = [0, 1, 2, 3, 32, 48, SIDE, 2**31 - 1]
BLOBS = [b"", PRIOR.data, *(picture.data for picture in PICTURES)]

SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_STRING: st.sampled_from(WORDS) | st.text(max_size=20),
    FieldDescriptor.CPPTYPE_ENUM: st.integers(0, 9) | st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT32: st.sampled_from(SIZES) | st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.sampled_from(SIZES) | st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.sampled_from(SIZES) | st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.sampled_from(SIZES) | st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
}


def well_formed(descriptor: Descriptor) -> st.SearchStrategy[Message]:
    """Messages of a type with anything in their fields, what the service knows more often than chance would have it."""
    fields = {field.name: _field(field) for field in descriptor.fields if not _is_map(field)}
    return st.fixed_dictionaries({}, optional=fields).map(lambda chosen: _made(descriptor, chosen))


def _made(descriptor: Descriptor, fields: dict[str, Any]) -> Message:
    for oneof in descriptor.oneofs:  # of several the last would win: one is kept
        for field in [field for field in oneof.fields if field.name in fields][1:]:
            del fields[field.name]
    return GetMessageClass(descriptor)(**fields)


def _field(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        one: st.SearchStrategy[Any] = st.deferred(lambda: well_formed(field.message_type))
    elif field.type == FieldDescriptor.TYPE_BYTES:
        one = st.sampled_from(BLOBS) | st.binary(max_size=40)
    else:
        one = SCALARS[field.cpp_type]
    # protobuf 6.30 does not know is_repeated, and 7 no longer the label: a repeated field's default is a list in each.
    return st.lists(one, max_size=4) if field.default_value == [] else one


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry
