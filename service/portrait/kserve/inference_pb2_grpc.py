"""Stub and servicer of KServe's Open Inference Protocol; the types stand beside this file."""

from portrait.kserve import inference_pb2
from portrait_client.contract import define_service

define_service(inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"], globals())
