"""Each gRPC call of the service once: python calls.py HOST:PORT FILE.jpg [STREAM].

Needs portrait-client, and grpcio-health-checking for the last one.
"""

import sys
from pathlib import Path

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from portrait_client import Picture, SyncClient


def main(target: str, file: str, stream: str | None = None) -> None:
    """Call the service at `target`; `stream` is the name of a camera or of a published stream."""
    picture = Picture.jpeg(Path(file).read_bytes())
    with SyncClient(target) as client:
        for model in client.models():
            if model.default:
                print(f"ListModels: {model.name} {model.width}x{model.height}")
        reply = client.segment(picture, mode="cutout")
        print(f"Segment: {reply.picture.width}x{reply.picture.height}")
        for reply in client.stream([picture] * 3, mode="mask", every_frame=True):
            print(f"SegmentStream: {reply.id} {reply.picture.width}x{reply.picture.height}")
        if stream is not None:
            reply = next(client.watch(stream))
            print(f"Watch: {reply.picture.width}x{reply.picture.height}")
    with grpc.insecure_channel(target) as channel:
        status = HealthStub(channel).Check(HealthCheckRequest(service="portrait.v1.SegmentationService")).status
        print(f"Check: {HealthCheckResponse.ServingStatus.Name(status)}")


main(*sys.argv[1:])
