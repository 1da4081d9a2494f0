"""The Python client of the gRPC service.

async with Client("localhost:50051") as client:
    reply = await client.segment(Picture.jpeg(data), mode="cutout")
    async for reply in client.stream(frames, mode="mask"):   # frames: pictures, or (H, W, 3) uint8 RGB
        reply.array                                          # (H, W) uint8

with SyncClient("localhost:50051") as client:
    for reply in client.stream(frames, mode="mask"):
        reply.array
"""

from portrait_client.client import Client
from portrait_client.failover import Frames
from portrait_client.stream import Stream
from portrait_client.sync import SyncClient
from portrait_client.types import ClientError, Picture, Presence, Reply, Tls

__all__ = ["Client", "ClientError", "Frames", "Picture", "Presence", "Reply", "Stream", "SyncClient", "Tls"]
