"""What a session makes of a frame, and whom it tells."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from portrait.admission.quality import Quality
from portrait.pipeline import Recorder
from portrait.reuse import Carried

W = TypeVar("W")


class Counting(Recorder, Protocol):
    """What a session asks of metrics, besides stages."""

    def frame(self, transport: str, result: str, reason: str = "", count: int = 1) -> None:
        """Count frames by what became of them."""

    def frame_age(self, transport: str, seconds: float) -> None:
        """Note how old a result is."""

    def carried(self, reason: str) -> None:
        """Count a result with the mask of an earlier frame."""

    def hung(self, transport: str) -> None:
        """Count a session whose thread was given up."""


class Span(Protocol):
    """What a session asks of tracing."""

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Note a life event."""

    def end(self, fields: Mapping[str, Any], failed: bool) -> None:
        """Say what became of the session."""


@dataclass(frozen=True, slots=True)
class Turn(Generic[W]):
    """One frame's way through a session."""

    wire: W
    """What the codec made of the result."""
    failure: Exception | None
    """Why the mask is empty, if segmentation failed."""
    waited: float
    """Seconds from arrival to the start of the work."""
    worked: float
    """Seconds of work."""
    quality: Quality = Quality.FULL
    """The quality that was in force."""
    carried: Carried = ""
    """Why the mask is an earlier frame's, if it is."""
