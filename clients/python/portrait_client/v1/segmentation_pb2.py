"""Messages of portrait.v1; the types stand beside this file."""

from pathlib import Path

# What the contract imports.
import google.protobuf.duration_pb2
import google.protobuf.timestamp_pb2  # noqa: F401

import portrait_client.rpc  # noqa: F401
from portrait_client.contract import define_messages

define_messages(Path(__file__).with_name("segmentation.binpb"), globals())
