"""What the doctor says of one thing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool
    finding: str
    fatal: bool = True
    """Whether the service cannot work while this is not ok."""
