"""Messages of portrait.v1, as the client has them."""

from portrait_client.v1.segmentation_pb2 import *  # noqa: F403
