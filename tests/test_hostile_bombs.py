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

MUCH = 300 * 2**20
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


def post(url: str, data: bytes, **headers: str) -> int:
    request = urllib.request.Request(url, data, {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


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
