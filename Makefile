PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help

.PHONY: protos
protos: ## Regenerate service/portrait/v1 from protos/
	$(BIN)/python -m grpc_tools.protoc -I protos -I $$($(BIN)/python -c "import google.rpc, pathlib; print(pathlib.Path(google.rpc.__path__[0]).parents[1])") \
	  --python_out=service --grpc_python_out=service --mypy_out=quiet:service --mypy_grpc_out=quiet:service \
	  protos/portrait/v1/segmentation.proto
