"""The tables of docs/reference/protocol.md, made of the contract's comments: `python -m tests.proto_tables --write`."""

import sys
from collections.abc import Iterator

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from tests.protos import ROOT, compiled

CONTRACT = "portrait/v1/segmentation.proto"
PAGE = ROOT / "docs" / "reference" / "protocol.md"
BEGIN, END = "<!-- made by `make protos`: -->\n", "<!-- end -->\n"

# Counters of descriptor.proto: where in a file a comment belongs.
MESSAGE, ENUM, FIELD, VALUE = 4, 5, 2, 2


def contract() -> FileDescriptorProto:
    """The contract with its comments."""
    return compiled(CONTRACT, "--include_source_info")


def comments(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    """Comment by place, each on one line."""
    return {
        tuple(place.path): " ".join(place.leading_comments.split())
        for place in file.source_code_info.location
        if place.leading_comments
    }


def tables() -> str:
    """Markdown of every message and enum."""
    file = contract()
    said = comments(file)
    parts = [_message(message, (MESSAGE, i), said) for i, message in enumerate(file.message_type) if message.field]
    parts += [_enum(enum, (ENUM, i), said) for i, enum in enumerate(file.enum_type)]
    return "\n".join(parts)


def undocumented() -> Iterator[str]:
    """Fields and values without a comment."""
    file = contract()
    said = comments(file)
    for i, message in enumerate(file.message_type):
        yield from (
            f"{message.name}.{f.name}" for j, f in enumerate(message.field) if (MESSAGE, i, FIELD, j) not in said
        )
    for i, enum in enumerate(file.enum_type):
        yield from (value.name for j, value in enumerate(enum.value) if (ENUM, i, VALUE, j) not in said)


def _message(message: DescriptorProto, path: tuple[int, ...], said: dict[tuple[int, ...], str]) -> str:
    rows = [
        f"| `{field.name}` | {_type(field)} | {_escaped(said[(*path, FIELD, j)])} |"
        for j, field in enumerate(message.field)
    ]
    return _table(message.name, said[path], "field", "type", rows)


def _enum(enum: EnumDescriptorProto, path: tuple[int, ...], said: dict[tuple[int, ...], str]) -> str:
    rows = [
        f"| `{value.name}` | {value.number} | {_escaped(said[(*path, VALUE, j)])} |"
        for j, value in enumerate(enum.value)
    ]
    return _table(enum.name, said[path], "value", "number", rows)


def _table(name: str, text: str, first: str, second: str, rows: list[str]) -> str:
    head = f"| {first} | {second} | what it is |\n| --- | --- | --- |"
    return "\n".join([f"### {name}\n\n{text}\n\n{head}", *rows]) + "\n"


def _type(field: FieldDescriptorProto) -> str:
    name = field.type_name.rpartition(".")[2] or FieldDescriptorProto.Type.Name(field.type)[5:].lower()
    return f"repeated {name}" if field.label == FieldDescriptorProto.LABEL_REPEATED else name


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def updated(page: str) -> str:
    """The page with its tables made anew."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + "\n" + tables() + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    fresh = updated(PAGE.read_text())
    if "--write" in sys.argv:
        PAGE.write_text(fresh)
    elif fresh != PAGE.read_text():
        sys.exit("docs/reference/protocol.md is stale: run make protos")
