"""ICC profiles made by hand (ICC.1:2022, 7 to 10): matrix profiles with sRGB's curve."""

import struct

Row = tuple[float, float, float]

P3: tuple[Row, Row, Row] = (
    (0.51512, 0.2412, -0.00105),
    (0.29198, 0.69225, 0.04189),
    (0.1571, 0.06657, 0.78407),
)
"""XYZ of red, green and blue, adapted to D50: Display P3."""

SRGB: tuple[Row, Row, Row] = (
    (0.43607, 0.22249, 0.01392),
    (0.38515, 0.71687, 0.09708),
    (0.14307, 0.06061, 0.7141),
)


COLORS = (b"r", b"g", b"b")


def profile(name: bytes, primaries: tuple[Row, Row, Row]) -> bytes:
    """A display profile of those primaries."""
    curve = b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    tags = [
        (b"desc", b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + b"\0" * 79),
        (b"cprt", b"text\0\0\0\0none\0"),
        (b"wtpt", b"XYZ \0\0\0\0" + _fixed(0.9642, 1, 0.8249)),
        *(
            (color + b"XYZ", b"XYZ \0\0\0\0" + _fixed(*xyz))
            for color, xyz in zip((b"r", b"g", b"b"), primaries, strict=True)
        ),
        *((color + b"TRC", curve) for color in (b"r", b"g", b"b")),
    ]
    start, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for tag, content in tags:
        table += tag + struct.pack(">II", start + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    head = struct.pack(
        ">I4sI4s4s4s6H", start + len(body), b"test", 0x02400000, b"mntr", b"RGB ", b"XYZ ", 2026, 1, 1, 0, 0, 0
    )
    head += b"acsp" + b"\0" * 28 + _fixed(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + table + body


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)
