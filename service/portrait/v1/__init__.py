"""The contract of the gRPC service; it is a part of the client."""
