"""Stub and servicer of portrait.v1; the types stand beside this file."""

from portrait_client.contract import define_service
from portrait_client.v1 import segmentation_pb2

define_service(segmentation_pb2.DESCRIPTOR.services_by_name["SegmentationService"], globals())
