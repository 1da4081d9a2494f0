"""KServe v2: the real tritonclient, and requests it would never send."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import cv2
import grpc.aio
import numpy as np
import pytest

from portrait import __version__
from portrait.client import Client, ClientError
from portrait.errors import BadPicture
from portrait.kserve import inference_pb2 as kserve
from portrait.kserve import inference_pb2_grpc as kserve_grpc
from portrait.server.app import RunningService
from portrait.transports.grpc.kserve import CHUNK, InferRequest, unpack_uint8
from portrait.v1 import segmentation_pb2 as pb
from tests.boxes import serving
from tests.calls import TRITON, client, jpeg, needs_tritonclient, shown
from tests.embedded import FINE, SIDE
from tests.people import Clip
from tests.snippets import ending

__all__ = ["client", "shown"]  # fixtures

ROOT = Path(__file__).parents[1]


@needs_tritonclient
async def test_tritonclient_gets_the_python_clients_masks(
    service: RunningService, client: Client, shown: Clip, tmp_path: Path
) -> None:
    frames = np.array([frame[..., ::-1] for frame in shown.frames[:8]])
    still = jpeg(shown.frames[0]).message.data
    np.savez(tmp_path / "frames.npz", frames=frames, jpeg=np.frombuffer(still, np.uint8))
    peer = await asyncio.create_subprocess_exec(
        TRITON, ROOT / "tests" / "triton_peer.py", f"127.0.0.1:{service.grpc_port}",
        tmp_path / "frames.npz", tmp_path / "masks.npz",
    )  # fmt: skip
    assert await asyncio.wait_for(peer.wait(), 60) == 0
    found = np.load(tmp_path / "masks.npz")
    answers = json.loads(str(found["answers"]))

    prior = None
    for frame, mask in zip(frames, found["masks"], strict=True):
        async with client.open_stream(every_frame=True, prior=prior) as stream:
            await stream.send(np.ascontiguousarray(frame), 0)
            reply = await stream.receive()
        assert reply is not None
        assert mask.shape == (1, SIDE, SIDE, 1)
        assert mask.tobytes() == reply.array.tobytes()
        prior = reply.array
    assert found["still"].tobytes() == (await client.segment(jpeg(shown.frames[0]), model="portrait")).array.tobytes()

    assert [answers[asked] for asked in ("live", "ready", "model", "other model")] == [True, True, True, False]
    assert answers["server"] == {"name": "portrait", "version": __version__}
    assert answers["metadata"]["versions"] == ["1"]
    assert answers["metadata"]["inputs"] == [
        {"name": "image", "datatype": "UINT8", "shape": ["1", "-1", "-1", "3"]},
        {"name": "prior", "datatype": "UINT8", "shape": ["1", str(SIDE), str(SIDE), "1"]},
    ]
    assert answers["metadata"]["outputs"] == [
        {"name": "mask", "datatype": "UINT8", "shape": ["1", str(SIDE), str(SIDE), "1"]}
    ]
    expected = ["unknown model 'nobody'", "got ['picture']", "got UINT8 (360, 640), expected", "got 8x8, expected"]
    for refusal, message in zip(answers["refusals"], expected, strict=True):
        assert refusal.startswith("StatusCode.INVALID_ARGUMENT")
        assert message in refusal


SHARED = """
import sys
from importlib.util import find_spec
import portrait.server.app
if find_spec("tensorflow"):  # not for every machine and Python
    import tensorflow
import google.protobuf, numpy, tritonclient.grpc
from portrait_client import SyncClient

pixels = numpy.zeros((48, 64, 3), numpy.uint8)
image = tritonclient.grpc.InferInput("image", [1, *pixels.shape], "UINT8")
image.set_data_from_numpy(pixels[None])
theirs = tritonclient.grpc.InferenceServerClient(sys.argv[1]).infer("portrait", [image]).as_numpy("mask")
with SyncClient(sys.argv[1]) as client:
    ours = client.segment(pixels, model="portrait", mode="mask").array
print(google.protobuf.__version__.split(".")[0], theirs.shape, ours.shape)
"""


@needs_tritonclient
async def test_service_tritonclient_tensorflow_and_opentelemetry_share_an_environment() -> None:
    """With the protobuf that they allow, which is a major version older than ours, and all in one process as well."""
    paths = f"{ROOT}/service:{ROOT}/clients/python"
    with serving(python=TRITON, PYTHONPATH=paths, PORTRAIT_WORKERS="1", PORTRAIT_TRACING="true") as (_, told):
        environ = {"PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"}
        status, said = await ending(environ, TRITON, "-c", SHARED, told["grpc"])
    assert status == 0, said
    assert said.endswith(f"6 (1, {SIDE}, {SIDE}, 1) ({SIDE}, {SIDE})\n"), said  # after what tensorflow says


def image(**fields: Any) -> kserve.ModelInferRequest.InferInputTensor:
    return kserve.ModelInferRequest.InferInputTensor(
        **{"name": "image", "datatype": "UINT8", "shape": [1, 2, 2, 3], **fields}
    )


async def infer(service: RunningService, request: kserve.ModelInferRequest) -> kserve.ModelInferResponse:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        try:
            answer = await kserve_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
        except grpc.aio.AioRpcError as error:
            raise ClientError.from_rpc(error) from None
    assert isinstance(answer, kserve.ModelInferResponse)
    return answer


async def test_contents_may_be_lists_of_numbers_or_of_files(
    service: RunningService, client: Client, shown: Clip
) -> None:
    small = np.asarray(cv2.resize(shown.frames[0], (32, 24)), np.uint8)[..., ::-1]
    contents = kserve.InferTensorContents(uint_contents=small.reshape(-1).tolist())
    request = kserve.ModelInferRequest(
        model_name="portrait", id="7", inputs=[image(shape=[24, 32, 3], contents=contents)]
    )
    answer = await infer(service, request)
    assert (answer.id, answer.model_version) == ("7", "1")
    expected = await client.segment(np.ascontiguousarray(small), model="portrait")
    assert answer.raw_output_contents[0] == expected.array.tobytes()

    file = jpeg(shown.frames[0]).message.data
    contents = kserve.InferTensorContents(bytes_contents=[file])
    answer = await infer(
        service, kserve.ModelInferRequest(inputs=[image(datatype="BYTES", shape=[1], contents=contents)])
    )
    still = await client.segment(jpeg(shown.frames[0]), format=pb.PICTURE_FORMAT_GRAY8)
    assert answer.raw_output_contents[0] == still.array.tobytes()


async def test_contents_as_numbers_are_the_bytes_however_they_are_packed(
    service: RunningService, client: Client, shown: Clip
) -> None:
    """Packed in one list, in several, and one by one (protobuf.dev, Encoding); around a chunk's end, and cut short."""
    small = np.asarray(cv2.resize(shown.frames[0], (640, 640)), np.uint8)[..., ::-1]
    numbers = small.reshape(-1).tolist()
    expected = (await client.segment(np.ascontiguousarray(small), model="portrait")).array.tobytes()
    head = kserve.ModelInferRequest(model_name="portrait", inputs=[image(shape=[1, 640, 640, 3])]).SerializeToString()
    for cuts in ([len(numbers)], [1, 1000, len(numbers)]):
        contents, at = b"", 0
        for cut in cuts:
            contents += kserve.InferTensorContents(uint_contents=numbers[at:cut]).SerializeToString()
            at = cut
        whole = kserve.ModelInferRequest.FromString(head)
        whole.inputs[0].contents.MergeFromString(contents)
        assert len(whole.inputs[0].contents.uint_contents) == len(numbers)
        tensor = image(shape=[1, 640, 640, 3]).SerializeToString() + member(5, contents)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            answer = kserve.ModelInferResponse.FromString(await call(member(1, b"portrait") + member(5, tensor)))
        assert answer.raw_output_contents[0] == expected


def member(number: int, data: bytes) -> bytes:
    """A member of that number, as protobuf writes it."""
    return bytes([number << 3 | 2]) + varint(len(data)) + data


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


@pytest.mark.parametrize("size", [1, 100, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_packed_numbers_are_unpacked_across_chunks(size: int) -> None:
    values = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    contents = kserve.InferTensorContents(uint_contents=values.tolist()).SerializeToString()
    packed = [memoryview(contents)[len(contents) - packed_length(values) :]]
    assert unpack_uint8(packed, size, "image") == values.tobytes()
    halves = [packed[0][: packed_length(values[: size // 2])], packed[0][packed_length(values[: size // 2]) :]]
    assert unpack_uint8(halves, size, "image") == values.tobytes()
    for wrong, said in ((size + 1, f"got {size} numbers"), (size - 1, "got more than")):
        with pytest.raises(BadPicture, match=said):
            unpack_uint8(packed, wrong, "image")


def packed_length(values: Any) -> int:
    return len(values) + int(np.count_nonzero(values > 127))


@pytest.mark.parametrize("bad", [b"\x80", b"\x80\x02", b"\x80\x80\x01", b"\x01\x80", b"\xff" * 40, b"\x80\x00\x80"])
def test_packed_numbers_that_are_no_bytes_are_refused(bad: bytes) -> None:
    for expected in range(1, 4):
        with pytest.raises(BadPicture):
            unpack_uint8([memoryview(bad)], expected, "image")


async def test_thirty_million_numbers_do_not_stop_the_other_calls(service: RunningService) -> None:
    """While they are parsed and unpacked the event loop goes on: no step of it takes as long as parsing them would."""
    side = 3200
    contents = kserve.InferTensorContents(uint_contents=[100] * (side * side * 3))
    data = kserve.ModelInferRequest(inputs=[image(shape=[1, side, side, 3], contents=contents)]).SerializeToString()
    parsing = cpu_time(kserve.ModelInferRequest.FromString, data)
    assert cpu_time(InferRequest.parse, data) < parsing / 3
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        answer = await channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(data, timeout=120)
    assert len(kserve.ModelInferResponse.FromString(answer).raw_output_contents[0]) == FINE * FINE


def cpu_time(function: Any, *arguments: Any) -> float:
    """CPU time of this thread, which the load of the machine does not change much."""
    started = time.thread_time()
    function(*arguments)
    return time.thread_time() - started


def request(*inputs: Any, raw: list[bytes] | None = None, **fields: Any) -> kserve.ModelInferRequest:
    return kserve.ModelInferRequest(inputs=inputs, raw_input_contents=raw or [], **fields)


BAD: dict[str, tuple[kserve.ModelInferRequest, str]] = {
    "nothing": (request(), "got [], expected image"),
    "twice": (request(image(), image(), raw=[b"", b""]), "got ['image', 'image']"),
    "no contents": (request(image()), "got 0 bytes for (1, 2, 2, 3), expected 12"),
    "too many contents": (request(image(), raw=[b"", b""]), "got 2 for 1 inputs"),
    "another version": (request(image(), model_version="2"), "got '2', expected '1'"),
    "another output": (
        request(image(), outputs=[kserve.ModelInferRequest.InferRequestedOutputTensor(name="x")]),
        "got ['x'], expected mask",
    ),
    "no size": (request(image(shape=[])), "got UINT8 ()"),
    "a batch": (request(image(shape=[2, 2, 2, 3])), "got UINT8 (2, 2, 2, 3)"),
    "negative": (request(image(shape=[-2, -2, 3]), raw=[bytes(12)]), "got -2x-2"),
    "huge": (request(image(shape=[2**31, 2**31, 3])), "expected at most"),
    "floats": (request(image(datatype="FP32"), raw=[bytes(48)]), "got FP32 (1, 2, 2, 3)"),
    "numbers above 255": (
        request(image(contents=kserve.InferTensorContents(uint_contents=[256] * 12))),
        "a number above 255 as UINT8, expected 0 to 255",
    ),
    "no file": (request(image(datatype="BYTES", shape=[1]), raw=[b"\5\0\0\0hello"]), "no picture"),
    "a wrong length": (request(image(datatype="BYTES", shape=[1]), raw=[b"\xff\xff\xff\xffhello"]), "got 9 bytes"),
    "two files": (request(image(datatype="BYTES", shape=[1])), "got 0 elements, expected 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_request_is_refused_saying_why(service: RunningService, name: str) -> None:
    bad, message = BAD[name]
    with pytest.raises(ClientError) as refused:
        await infer(service, bad)
    assert message in refused.value.message
    assert refused.value.code == "INVALID_ARGUMENT"
    assert refused.value.reason in ("BAD_OPTION", "BAD_PICTURE")
