"""The least that gRPC itself costs: `python -m tests.benchmarks.bare BYTES`, below which no server of `grpc.aio` comes.

A stream whose every message is answered by so many bytes at once: none is parsed, nothing is worked on, no other thread
is asked.
"""

import argparse
import asyncio
import json
from typing import Any

import grpc.aio

SERVICE, METHOD = "bare.Echo", "Stream"


async def serve(service: str, method: str, stream: Any) -> None:
    """Serve one method of messages as they are, from a stream to a stream, until the process is killed."""
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(stream)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"grpc": f"127.0.0.1:{port}"}), flush=True)
    await server.wait_for_termination()


async def echo(length: int) -> None:
    """Serve the echo."""
    answer = bytes(length)

    async def stream(_: Any, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        while await context.read() is not grpc.aio.EOF:
            await context.write(answer)

    await serve(SERVICE, METHOD, stream)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("length", metavar="BYTES", type=int, help="of an answer")
    asyncio.run(echo(parser.parse_args().length))


if __name__ == "__main__":
    main()
