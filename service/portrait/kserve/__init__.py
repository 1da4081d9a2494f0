"""KServe's Open Inference Protocol, protos/portrait/kserve."""
