"""Bytes and lines with something wrong with them."""

import os
import random
import re
import time
from collections.abc import Iterator, Sequence

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
"""For each kind of input, in `make fuzz`. Other runs make the least number of rounds, always the same."""

SEED = int(os.environ.get("FUZZ_SEED", "1"))

NUMBERS = ["0", "-1", "65536", "4294967296", "99999999999999999999", "1e9", "", "0x10", "\u0661"]
WORDS = [
    b"\x00",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xff" * 9 + b"\x01",  # the largest number of protobuf
    b"%s%n",
    b"\r\n\r\n",
    b"'\"<",
    b"../../",
]


def mutated_bytes(data: bytes, dice: random.Random) -> bytes:
    """One to eight changes, more of them near the beginning, where headers are."""
    changed = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 8])):
        at = dice.randrange(len(changed) + 1)
        at = min(at, dice.randrange(64)) if dice.random() < 0.5 else at
        match dice.randrange(6):
            case 0:
                changed[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                del changed[at : at + dice.randrange(1, 9)]
            case 2:
                changed[at:at] = dice.randbytes(dice.randrange(1, 9))
            case 3:
                del changed[at:]
            case 4:
                word = dice.choice(WORDS)
                changed[at : at + len(word)] = word
            case _:
                start = dice.randrange(len(changed) + 1)
                changed[at:at] = changed[start : start + dice.randrange(64)]
    return bytes(changed)


def mutated_lines(text: str, others: Sequence[str], dice: random.Random) -> str:
    """Lines left out, repeated, moved, taken from `others`, or with other numbers in them."""
    lines = text.splitlines(keepends=True)
    for _ in range(dice.choice([1, 2, 4, 16])):
        at = dice.randrange(len(lines)) if lines else 0
        match dice.randrange(6):
            case 0:
                del lines[at : at + 1]
            case 1:
                lines[at:at] = lines[at : at + 1] * dice.choice([1, 1, 5, 500])
            case 2 if lines:
                lines.insert(dice.randrange(len(lines)), lines.pop(at))
            case 3:
                lines[at:at] = [dice.choice(dice.choice(others).splitlines(keepends=True))]
            case 4 if lines:
                lines[at] = re.sub(r"\d+", lambda _: dice.choice(NUMBERS), lines[at], count=dice.randrange(1, 4))
            case _ if lines:
                lines[at] = mutated_bytes(lines[at].encode(), dice).decode("utf-8", "replace")
    return "".join(lines)


def rounds(least: int = 20, seconds: float = SECONDS) -> Iterator[random.Random]:
    """A source of chance for each round, for so many rounds and seconds at least."""
    until, number = time.monotonic() + seconds, 0
    while number < least or time.monotonic() < until:
        yield random.Random(f"{SEED}:{number}")
        number += 1
