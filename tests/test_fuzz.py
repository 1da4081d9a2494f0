"""Whatever bytes come in: no crash, no hang, no INTERNAL. FUZZ_SECONDS makes it longer."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from portrait.app import Running
from portrait.client import Client
from portrait.kserve import inference_pb2 as kserve
from portrait.v1 import segmentation_pb2 as pb
from tests.people import room
from tests.test_grpc import i420, jpeg, rgb24

SECONDS = float(os.environ.get("FUZZ_SECONDS", "4"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))

PICTURES = [make(room(48, 32)).message for make in (jpeg, i420, rgb24)]
OUTPUTS = [
    pb.Output(),
    pb.Output(mode="color", color="#112233"),
    pb.Output(mode="image", background_name="dusk", format=pb.PICTURE_FORMAT_PNG),
    pb.Output(mode="alpha", format=pb.PICTURE_FORMAT_GRAY1, mask_size=pb.MASK_SIZE_FRAME),
]
STILLS = [pb.SegmentRequest(picture=picture, output=output) for picture in PICTURES for output in OUTPUTS]
CONFIGS = [
    pb.SegmentStreamRequest(
        config=pb.StreamConfig(
            output=output,
            delivery=pb.DELIVERY_EVERY_FRAME,
            prior=pb.Picture(format=pb.PICTURE_FORMAT_GRAY8, width=224, height=224, data=bytes(224 * 224)),
            prior_every=2,
        )
    )
    for output in OUTPUTS
]
MESSAGES = [
    *(pb.SegmentStreamRequest(frame=pb.Frame(id=1, timestamp_us=-1, picture=picture)) for picture in PICTURES),
    *(
        pb.SegmentStreamRequest(control=pb.Control(output=output, reset_prior=True, send_prior=True))
        for output in OUTPUTS
    ),
]
INFERS = [
    kserve.ModelInferRequest(
        model_name="portrait",
        inputs=[kserve.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=[1, 32, 48, 3])],
        raw_input_contents=[PICTURES[2].data],
    ),
    kserve.ModelInferRequest(
        inputs=[kserve.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])],
        raw_input_contents=[len(PICTURES[0].data).to_bytes(4, "little") + PICTURES[0].data],
    ),
]
OTHERS = [pb.ListModelsRequest(), kserve.ModelMetadataRequest(name="portrait"), kserve.ModelReadyRequest(name="x")]

CALLS: dict[str, list[Any]] = {
    "/portrait.v1.SegmentationService/Segment": STILLS,
    "/portrait.v1.SegmentationService/ListModels": OTHERS,
    **{f"/inference.GRPCInferenceService/{name}": OTHERS for name in ("ServerLive", "ServerReady", "ServerMetadata")},
    "/inference.GRPCInferenceService/ModelReady": OTHERS,
    "/inference.GRPCInferenceService/ModelMetadata": OTHERS,
    "/inference.GRPCInferenceService/ModelInfer": INFERS,
}


def mutated(message: Any, dice: random.Random) -> bytes:
    """The message's bytes, more often than not with something wrong with them."""
    data = bytearray(message.SerializeToString())
    for _ in range(dice.choice([0, 1, 1, 2, 8])):
        at = dice.randrange(len(data) + 1)
        # Headers are short and at the beginning: half of the changes go there.
        at = min(at, dice.randrange(64)) if dice.random() < 0.5 else at
        match dice.randrange(5):
            case 0:
                data[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                del data[at : at + dice.randrange(1, 9)]
            case 2:
                data[at:at] = dice.randbytes(dice.randrange(1, 9))
            case 3:
                data = data[:at]
            case _:
                data[at : at + 10] = b"\xff" * 9 + b"\x01"  # the largest number there is
    return bytes(data)


async def one_call(channel: grpc.aio.Channel, path: str, data: bytes) -> grpc.StatusCode:
    call = channel.unary_unary(path)(data, timeout=20)
    return await call.code()


async def one_stream(channel: grpc.aio.Channel, dice: random.Random) -> grpc.StatusCode | None:
    async def requests() -> AsyncIterator[bytes]:
        yield mutated(dice.choice(CONFIGS), dice) if dice.random() < 0.5 else dice.choice(CONFIGS).SerializeToString()
        for _ in range(dice.randrange(6)):
            yield mutated(dice.choice(MESSAGES), dice)

    call = channel.stream_stream("/portrait.v1.SegmentationService/SegmentStream")(requests(), timeout=20)
    try:
        async for answer in call:
            result = pb.SegmentStreamResponse.FromString(answer).result
            assert result.error.code != grpc.StatusCode.INTERNAL.value[0], result.error
    except grpc.aio.AioRpcError as error:
        if error.details() == "Internal error from Core":
            return None  # this end's own word for a message sent after the server had ended the call
    return await call.code()


@pytest.mark.filterwarnings("ignore:unclosed")
async def test_no_bytes_crash_hang_or_confuse_the_service(service: Running) -> None:
    dice, counts = random.Random(SEED), dict.fromkeys(grpc.StatusCode, 0)
    until = time.monotonic() + SECONDS
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        while time.monotonic() < until:
            seed = dice.randrange(2**32)
            own = random.Random(seed)
            if own.random() < 0.5:
                code = await one_stream(channel, own)
            else:
                path = own.choice(list(CALLS))
                code = await one_call(channel, path, mutated(own.choice(CALLS[path]), own))
            if code is None:
                continue
            counts[code] += 1
            wrong = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED)
            assert code not in wrong, f"{code} of the mutation {seed}"
    assert counts[grpc.StatusCode.OK] > 0
    assert counts[grpc.StatusCode.INVALID_ARGUMENT] > 0
    assert await asyncio.wait_for(service.sessions.drain(10), 20) == 0


async def test_the_service_answers_after_all_that(service: Running) -> None:
    async with Client(f"127.0.0.1:{service.grpc_port}") as client:
        assert (await client.segment(jpeg(room(64, 48)))).array.shape == (224, 224)
