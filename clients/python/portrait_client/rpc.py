"""Status, ErrorInfo and RetryInfo of google.rpc: why a call failed.

Those of googleapis-common-protos where it is installed, since protobuf accepts one definition of each. Elsewhere they
are built here, so that the client does without that package.
"""

from contextlib import suppress
from pathlib import Path

# What they import.
import google.protobuf.any_pb2
import google.protobuf.duration_pb2

from portrait_client.contract import message_class, register

with suppress(ModuleNotFoundError):
    import google.rpc.error_details_pb2
    import google.rpc.status_pb2  # noqa: F401

for name in ("status", "error_details"):
    register(f"google/rpc/{name}.proto", Path(__file__).with_name(f"{name}.binpb"))

Status = message_class("google.rpc.Status")
ErrorInfo = message_class("google.rpc.ErrorInfo")
RetryInfo = message_class("google.rpc.RetryInfo")
