"""The Python client of the gRPC service.

async with Client("localhost:50051") as client:
    reply = await client.segment(Picture.jpeg(data), mode="cutout")
    async for reply in client.stream(frames, mode="mask"):   # frames: pictures, or (H, W, 3) uint8 RGB
        reply.array                                          # (H, W) uint8

with SyncClient("localhost:50051") as client:
    for reply in client.stream(frames, mode="mask"):
        reply.array
"""

from portrait.client.client import Client
from portrait.client.failover import Frames
from portrait.client.stream import Stream
from portrait.client.sync import SyncClient
from portrait.client.types import ClientError, Picture, Reply, Tls

__all__ = ["Client", "ClientError", "Frames", "Picture", "Reply", "Stream", "SyncClient", "Tls"]
