"""Ids of sessions and viewers: unguessable, and naming the worker that made them."""

import re
import secrets

INDEX = re.compile(r"[0-9]{1,4}")


def new_id(index: int) -> str:
    """Make an id for a session or viewer of worker `index`: the index, a dash and 144 random bits."""
    return f"{index}-{secrets.token_urlsafe(18)}"


def owner_of_id(name: str, rows: int) -> int | None:
    """Return the index of the worker that made the id; None for text that is no id of a box with that many rows."""
    index = name.partition("-")[0]
    return int(index) if INDEX.fullmatch(index) and int(index) < rows else None
