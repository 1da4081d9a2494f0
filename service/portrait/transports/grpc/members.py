"""How many members a message has, counted in its bytes: each takes two of these, and up to eighty once it is parsed.

Messages without lists too: one of several (oneof) that comes after another leaves that one's memory taken.
"""

from google.protobuf.descriptor import Descriptor

MOST_MEMBERS = 1000
"""Of a message and those in it. A packed list counts once: it grows eightfold at most."""

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""Wire types (protobuf.dev, Encoding)."""


def count_members(data: bytes, contract: Descriptor) -> int:
    """The members of a message and of those in it; no further than to MOST_MEMBERS + 1.

    Bytes that are no message are counted as far as they are one.
    """
    count = 0
    waiting = [(memoryview(data), contract)]
    while waiting:
        view, kind = waiting.pop()
        at = 0
        while at < len(view):
            count += 1
            if count > MOST_MEMBERS:
                return count
            tag, at = _varint(view, at)
            wire = tag & 7
            if wire == LENGTH:
                length, at = _varint(view, at)
                field = kind.fields_by_number.get(tag >> 3)
                if field is not None and field.message_type is not None:
                    waiting.append((view[at : at + length], field.message_type))
                at += length
            elif wire == VARINT:
                _, at = _varint(view, at)
            else:
                at += {FIXED64: 8, FIXED32: 4}.get(wire, 0)
    return count


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits per byte, and where it ends; one that is cut short ends with the bytes."""
    value = shift = 0
    while at < len(view) and shift < 70:
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            break
    return value, at
