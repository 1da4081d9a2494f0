"""Report: what became of a job."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Done:
    """A job that has made its result."""

    frames: int
    notes: tuple[str, ...] = ()
    """What a user should know: what was left out of the result, or encoded anew."""
