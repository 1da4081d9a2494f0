"""Stub and servicer of portrait.v1, as the client has them."""

from portrait_client.v1.segmentation_pb2_grpc import SegmentationServiceServicer as SegmentationServiceServicer
from portrait_client.v1.segmentation_pb2_grpc import SegmentationServiceStub as SegmentationServiceStub
from portrait_client.v1.segmentation_pb2_grpc import (
    add_SegmentationServiceServicer_to_server as add_SegmentationServiceServicer_to_server,
)
