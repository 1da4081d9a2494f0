"""Times and rates that hold on a machine without other work: `make timing` checks them, every other run prints them."""

import os

QUIET = os.environ.get("QUIET_MACHINE") == "1"


def at_most(what: str, found: float, limit: float) -> None:
    """Print a figure; on a quiet machine it must not exceed `limit`."""
    print(f"{what}: {found:.3g}; at most {limit:g} on a quiet machine")
    assert not QUIET or found <= limit, f"{what}: got {found:.3g}, expected at most {limit:g}"


def at_least(what: str, found: float, limit: float) -> None:
    """Print a figure; on a quiet machine it must reach `limit`."""
    print(f"{what}: {found:.3g}; at least {limit:g} on a quiet machine")
    assert not QUIET or found >= limit, f"{what}: got {found:.3g}, expected at least {limit:g}"
