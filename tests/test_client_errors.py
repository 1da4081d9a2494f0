"""What a client is told at the end of a stream, whatever stands between it and the service."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata

from portrait.client import Client, ClientError, Picture
from portrait.errors import Unauthenticated
from portrait.transports.grpc.status import abort
from portrait.v1 import segmentation_pb2 as pb
from portrait.v1 import segmentation_pb2_grpc as pb_grpc


def test_the_services_own_words_win_over_the_code_of_a_proxy_that_cut_the_stream() -> None:
    detail = AnyMessage()
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


class Refusing(pb_grpc.SegmentationServiceServicer):
    """Ends every stream with words of its own: one that opens at once, one that is open at its next message."""

    def __init__(self, *, opens: bool) -> None:
        self._opens, self.over = opens, threading.Event()

    async def SegmentStream(self, requests: AsyncIterator[Any], context: Any) -> None:  # type: ignore[override]  # noqa: N802
        if self._opens:
            await anext(requests)
            await context.write(pb.SegmentStreamResponse(info=pb.StreamInfo(session_id="x")))
            await anext(requests)
        context.add_done_callback(lambda _: self.over.set())
        await abort(context, Unauthenticated("the token is unknown"))


@contextmanager
def elsewhere(servicer: pb_grpc.SegmentationServiceServicer) -> Iterator[str]:
    """A server with an event loop of its own: it goes on while a client's stands still."""
    started, port = threading.Event(), 0
    loop = asyncio.new_event_loop()
    server: Any = None

    async def start() -> None:
        nonlocal port, server
        server = grpc.aio.server()
        pb_grpc.add_SegmentationServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        started.set()

    def live() -> None:
        loop.run_until_complete(start())
        loop.run_until_complete(server.wait_for_termination())
        loop.run_until_complete(asyncio.sleep(0.1))  # what grpc.aio still has to end
        loop.close()

    thread = threading.Thread(target=live)
    thread.start()
    started.wait(60)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(0), loop)
        thread.join(60)


async def test_a_refusal_that_meets_the_clients_message_is_told_in_the_servers_words() -> None:
    """grpc.aio puts an INTERNAL of its own over the server's status when a message cannot be sent any more."""
    with elsewhere(Refusing(opens=False)) as target:
        async with Client(target) as client:
            for _ in range(50):
                with pytest.raises(ClientError) as refused:
                    async with client.open_stream():
                        pass
                assert (refused.value.code, refused.value.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")


async def test_an_end_that_meets_the_clients_message_is_told_in_the_servers_words() -> None:
    for _ in range(5):
        servicer = Refusing(opens=True)
        with elsewhere(servicer) as target:
            async with Client(target) as client, client.open_stream() as stream:
                await stream.send(Picture.jpeg(b""), 1)
                assert servicer.over.wait(60)  # while this loop stands still and cannot see the status
                time.sleep(0.05)  # noqa: ASYNC251  so that the status is here, and not yet seen
                for read_first in (False, True):
                    with pytest.raises(ClientError, match="the token is unknown") as ended:
                        await (stream.receive() if read_first else stream.send(Picture.jpeg(b""), 2))
                    assert ended.value.reason == "UNAUTHENTICATED"
                await stream.finish()
