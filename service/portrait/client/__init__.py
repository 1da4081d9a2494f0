"""The Python client of the gRPC service.

async with Client("localhost:50051") as client:
    reply = await client.segment(Picture.jpeg(data), mode="cutout")
    async for reply in client.stream(pictures, mode="mask"):
        reply.array      # (H, W) uint8
"""

from portrait.client.client import Client, Stream
from portrait.client.values import ClientError, Picture, Reply

__all__ = ["Client", "ClientError", "Picture", "Reply", "Stream"]
