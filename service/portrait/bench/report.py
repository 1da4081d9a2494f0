"""What `portrait bench` measured of a box under load, as a table and as JSON."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from portrait.bench.frame import RATE


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of stream."""

    transport: str
    size: str
    mode: str
    """One of OUTPUT_MODES of `bench.box`."""


@dataclass(frozen=True)
class Level:
    """A box under a number of streams of one kind. Times are in milliseconds, over all streams."""

    kind: Kind
    asked: int
    """Streams that were asked for, up to now."""
    admitted: int
    frames_per_second: float
    """Of one stream."""
    dropped: float
    """Share of the frames that were dropped, 0 to 1."""
    age_p50: float
    age_p99: float
    cpu: float
    """CPU time of the whole box for one frame."""
    cores: float
    """Cores the box kept busy."""
    quality: int
    """How many steps quality was down at the end."""
    stages: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """p50 and p99 of each stage."""

    @property
    def streams_per_core(self) -> float:
        """How many such streams one core can serve."""
        return 1000 / RATE / self.cpu if self.cpu else 0.0

    def as_document(self) -> dict[str, Any]:
        """Return the level as JSON's types."""
        kind = {"transport": self.kind.transport, "size": self.kind.size, "mode": self.kind.mode}
        rest = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "kind"}
        return kind | rest | {"streams_per_core": round(self.streams_per_core, 2)}


HEADS: tuple[tuple[str, Callable[[Level], object]], ...] = (
    ("transport", lambda level: level.kind.transport),
    ("size", lambda level: level.kind.size),
    ("mode", lambda level: level.kind.mode),
    ("asked", lambda level: level.asked),
    ("admitted", lambda level: level.admitted),
    ("fps", lambda level: level.frames_per_second),
    ("dropped", lambda level: f"{100 * level.dropped:.1f} %"),
    ("age p50", lambda level: f"{level.age_p50:.1f}"),
    ("age p99", lambda level: f"{level.age_p99:.1f}"),
    ("cpu ms", lambda level: f"{level.cpu:.2f}"),
    ("cores", lambda level: f"{level.cores:.2f}"),
    ("streams/core", lambda level: f"{level.streams_per_core:.1f}"),
    ("quality", lambda level: -level.quality),
)


def table(levels: Sequence[Level]) -> str:
    """Format the levels as a table, with each level's stages below."""
    rows = [[head for head, _ in HEADS], *([str(cell(level)) for _, cell in HEADS] for level in levels)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADS))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([*lines, "", *_stage_lines(levels)])


def _stage_lines(levels: Sequence[Level]) -> Iterator[str]:
    yield "p50 / p99 of the stages, ms"
    for level in levels:
        kind = level.kind
        stages = "   ".join(f"{name} {p50:.2f} / {p99:.2f}" for name, (p50, p99) in level.stages.items())
        yield f"{kind.transport} {kind.size} {kind.mode}, {level.admitted} streams:   {stages}"
