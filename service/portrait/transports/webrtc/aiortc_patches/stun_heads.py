"""What a port that several connections share reads of a STUN message: its type, its transaction, whom it is for."""

REQUEST, RESPONSE, ERROR = b"\x00\x01", b"\x01\x01", b"\x01\x11"
"""The types of a Binding request, of its success response and of its error response (RFC 8489 section 5)."""

LAST_STUN = 3
"""The largest first byte of a STUN message (RFC 7983 section 7)."""

HEAD = 20
"""Bytes before a message's attributes; the last twelve are the number of the transaction."""

USERNAME = 0x0006
"""The attribute of a request that names the receiver first, then a colon and the sender."""


def receiver_of(request: bytes) -> bytes:
    """The receiver's part of a STUN request's USERNAME; empty where there is none."""
    end, at = min(len(request), HEAD + int.from_bytes(request[2:4], "big")), HEAD
    while at + 4 <= end:
        kind, length = int.from_bytes(request[at : at + 2], "big"), int.from_bytes(request[at + 2 : at + 4], "big")
        at += 4
        if kind == USERNAME:
            return request[at : min(at + length, end)].partition(b":")[0]
        at += -(-length // 4) * 4
    return b""
