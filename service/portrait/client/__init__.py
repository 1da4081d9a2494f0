"""The Python client of the gRPC service: the package portrait_client, which can be installed without the service."""

from portrait_client import Client, ClientError, Frames, Picture, Presence, Reply, Stream, SyncClient, Tls

__all__ = ["Client", "ClientError", "Frames", "Picture", "Presence", "Reply", "Stream", "SyncClient", "Tls"]
