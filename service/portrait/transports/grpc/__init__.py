"""gRPC: the service of `protos/`, KServe v2, health and reflection."""
