"""What a client is told when a proxy stands between it and the service."""

import grpc
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


def test_without_words_of_the_service_the_code_of_grpc_stands() -> None:
    error = ClientError.from_rpc(AioRpcError(grpc.StatusCode.INTERNAL, Metadata(), Metadata(), "reset"))
    assert (error.code, error.reason, error.message) == ("INTERNAL", "", "reset")
