"""Check whether a box can serve, and how clients elsewhere reach it; nothing is created or changed."""

from collections.abc import Iterator

from portrait.doctor.box import Check, examine_box, examine_packages
from portrait.doctor.reachability import examine_reachability
from portrait.settings import Settings

__all__ = ["Check", "examine"]


def examine(settings: Settings) -> Iterator[Check]:
    """Yield one check after the other."""
    yield from examine_box(settings)
    yield from examine_reachability(settings)
    yield from examine_packages()
