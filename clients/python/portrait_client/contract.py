"""Message classes, stubs and servicers of the contract, built when they are imported.

Code that protoc writes runs with one major version of protobuf and the next, and code that grpcio-tools writes with no
grpcio older than itself. What is built here from the compiled contract (`*.binpb`) runs with all versions that the
dependencies allow, so that the package can be installed beside others. The types stand in `*.pyi`; `make protos` writes
both.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.internal import builder


def define_messages(compiled: Path, names: dict[str, Any], pool: DescriptorPool | None = None) -> None:
    """Add the messages, enums and enum values of a compiled file (a FileDescriptorProto) to a module's names.

    The files that it imports have to be known to `pool` already; by default that is protobuf's own, which knows a
    message's name once in a process.
    """
    file = (pool or descriptor_pool.Default()).AddSerializedFile(compiled.read_bytes())
    names["DESCRIPTOR"] = file
    builder.BuildMessageAndEnumDescriptors(file, names)
    builder.BuildTopDescriptorsAndMessages(file, names["__name__"], names)


def register(name: str, compiled: Path) -> None:
    """Make a compiled file known to protobuf, unless another package has done so."""
    pool = descriptor_pool.Default()
    try:
        pool.FindFileByName(name)
    except KeyError:
        pool.AddSerializedFile(compiled.read_bytes())


def message_class(name: str) -> Any:
    """The class of a message that protobuf knows, by its full name."""
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(name))


def define_service(service: ServiceDescriptor, names: dict[str, Any]) -> None:
    """Add a service's stub, its servicer and the function that adds a servicer to a server to a module's names."""

    def connect(self: Any, channel: Any) -> None:
        for method in service.methods:
            call = getattr(channel, _kind(method))
            request, response = _classes(method)
            stub = call(
                _path(service, method),
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            setattr(self, method.name, stub)

    def add_to_server(servicer: Any, server: Any) -> None:
        handlers = {}
        for method in service.methods:
            make = getattr(grpc, f"{_kind(method)}_rpc_method_handler")
            request, response = _classes(method)
            handlers[method.name] = make(
                getattr(servicer, method.name),
                request_deserializer=request.FromString,
                response_serializer=response.SerializeToString,
            )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))

    module = {"__module__": names["__name__"]}
    unimplemented = {method.name: _unimplemented(_path(service, method)) for method in service.methods}
    names[f"{service.name}Stub"] = type(f"{service.name}Stub", (), {"__init__": connect, **module})
    names[f"{service.name}Servicer"] = type(f"{service.name}Servicer", (), {**unimplemented, **module})
    names[f"add_{service.name}Servicer_to_server"] = add_to_server


def _path(service: ServiceDescriptor, method: MethodDescriptor) -> str:
    return f"/{service.full_name}/{method.name}"


def _kind(method: MethodDescriptor) -> str:
    """The name that grpc gives calls of this kind, such as unary_stream."""
    sides = (method.client_streaming, method.server_streaming)
    return "_".join("stream" if streaming else "unary" for streaming in sides)


def _classes(method: MethodDescriptor) -> tuple[Any, Any]:
    return message_factory.GetMessageClass(method.input_type), message_factory.GetMessageClass(method.output_type)


def _unimplemented(path: str) -> Callable[[Any, Any, grpc.ServicerContext], None]:
    def refuse(self: Any, request: Any, context: grpc.ServicerContext) -> None:
        context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        context.set_details(f"{path} is not implemented")
        raise NotImplementedError(f"{path} is not implemented")

    return refuse
