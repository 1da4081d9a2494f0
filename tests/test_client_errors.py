"""What a client is told when a proxy stands between it and the service."""

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata

from portrait.client import ClientError


def test_the_services_own_words_win_over_the_code_of_a_proxy_that_cut_the_stream() -> None:
    detail = Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason="DRAINING"))
    status = status_pb2.Status(code=code_pb2.UNAVAILABLE, message="connect elsewhere", details=[detail])
    trailers = Metadata(("grpc-status-details-bin", status.SerializeToString()))
    cut = AioRpcError(grpc.StatusCode.CANCELLED, Metadata(), trailers, "Stream removed (RST_STREAM)")
    error = ClientError.from_rpc(cut)
    assert (error.code, error.reason, error.message) == ("UNAVAILABLE", "DRAINING", "connect elsewhere")


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED], ids=["nginx", "HAProxy"])
def test_a_stream_that_a_proxy_cut_is_a_lost_connection(code: grpc.StatusCode) -> None:
    error = ClientError.from_rpc(AioRpcError(code, Metadata(), Metadata(), "reset"))
    assert (error.code, error.reason, error.message) == ("UNAVAILABLE", "", "the connection was lost: reset")
