"""Little that wants to become much: sent to a real box, whose memory is looked at."""

import gzip
import subprocess
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from portrait.v1 import segmentation_pb2 as pb
from tests.boxes import serving

MUCH = 200 * 2**20
"""Bytes of a bomb once it has gone off."""

MOST = 150 * 2**20
"""By which the box may grow at its peak: its limits for bodies and messages are 32 and 28 MB."""

FORM = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
Box = tuple[subprocess.Popen[str], dict[str, Any]]


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    """A box of one process, whose memory is the box's."""
    with serving("--workers", "1") as box:
        yield box


def peak(pid: int) -> int:
    """Bytes of memory it has had at most."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def ask(method: str, url: str, data: bytes, **headers: str) -> tuple[int, bytes]:
    """Status and body of what comes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, named, method=method), timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def post(url: str, data: bytes, **headers: str) -> int:
    return ask("POST", url, data, **headers)[0]


COMPRESSED = {"gzip": lambda data: gzip.compress(data, 9), "deflate": lambda data: zlib.compress(data, 9)}


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_a_compressed_body_never_takes_more_than_a_plain_one(encoding: str, box: Box) -> None:
    process, told = box
    data = COMPRESSED[encoding](FORM + bytes(MUCH) + b"\r\n--x--\r\n")
    assert len(data) < 2**20
    before = peak(process.pid)
    kind = "multipart/form-data; boundary=x"
    status = post(told["page"] + "v1/segment", data, Content_Type=kind, Content_Encoding=encoding)
    assert 400 <= status < 500
    assert peak(process.pid) - before < MOST
    status = post(told["page"] + "webrtc", data, Content_Type="application/sdp", Content_Encoding=encoding)
    assert 400 <= status < 500
    assert peak(process.pid) - before < MOST


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_compressed_message_never_takes_more_than_a_plain_one(compression: grpc.Compression, box: Box) -> None:
    process, told = box
    bomb = pb.SegmentRequest(picture=pb.Picture(format=pb.PICTURE_FORMAT_JPEG, data=bytes(MUCH)))
    before = peak(process.pid)
    with grpc.insecure_channel(told["grpc"]) as channel:
        call = channel.unary_unary("/portrait.v1.SegmentationService/Segment")
        with pytest.raises(grpc.RpcError) as refused:
            call(bomb.SerializeToString(), compression=compression, timeout=60)
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    assert peak(process.pid) - before < MOST


MANY = 3 * 2**20


def field(tag: bytes, data: bytes) -> bytes:
    """A member of any length, as protobuf writes it."""
    size, length = len(data), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return tag + length + bytes([size]) + data


INFER, STREAM = "/inference.GRPCInferenceService/ModelInfer", "/portrait.v1.SegmentationService/SegmentStream"
MEMBERS = {
    "inputs": (INFER, field(b"\x2a", b"") * MANY),
    "outputs": (INFER, field(b"\x32", b"") * MANY),
    "parameters": (INFER, field(b"\x22", b"") * MANY),
    "raw contents": (INFER, field(b"\x3a", b"") * MANY),
    "parameters of an input": (INFER, field(b"\x2a", field(b"\x22", b"") * MANY)),
    "a shape": (INFER, field(b"\x2a", field(b"\x0a", b"image") + b"\x18\x01" * MANY)),
    "one after the other": (STREAM, (field(b"\x12", b"") + field(b"\x1a", b"")) * (MANY // 2)),
}
"""The method, and its message, in the fewest bytes."""


@pytest.mark.parametrize("members", MEMBERS)
def test_a_message_of_millions_of_members_is_not_parsed(members: str, box: Box) -> None:
    process, told = box
    method, message = MEMBERS[members]
    before = peak(process.pid)
    with grpc.insecure_channel(told["grpc"]) as channel, pytest.raises(grpc.RpcError) as refused:
        next(channel.stream_stream(method)(iter([message]), timeout=60))  # on the wire a call of one message is as any
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    assert "got more than 1000 members" in refused.value.details()  # type: ignore[attr-defined]
    assert peak(process.pid) - before < 50 * 2**20


LISTS = {
    "of dimensions": (2**15, "expected UINT8 (1,H,W,3)"),
    "too long to be parsed": (2**20, "shape: got a list of 1048576 bytes, expected at most 65536"),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_packed_list_is_one_member_and_is_told_shortly(name: str, box: Box) -> None:
    length, said = LISTS[name]
    tensor = field(b"\x0a", b"image") + field(b"\x12", b"UINT8") + field(b"\x1a", b"\x01" * length)
    with grpc.insecure_channel(box[1]["grpc"]) as channel:
        call = channel.unary_unary(INFER)
        with pytest.raises(grpc.RpcError) as refused:
            call(field(b"\x2a", tensor), timeout=60)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    assert said in refused.value.details()  # type: ignore[attr-defined]
