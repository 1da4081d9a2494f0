"""The contract of the gRPC service, protos/portrait/v1."""
