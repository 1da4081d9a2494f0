"""Changes of a session as JSON: PATCH /v1/sessions/{id}."""

import asyncio
import base64
import binascii
import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from portrait.admission.pixel_budget import PixelBudget, decode_background
from portrait.core.compositors import Options
from portrait.errors import BadOption
from portrait.image.backgrounds import Backgrounds
from portrait.image.clip import Clip
from portrait.image.frame import Frame

TEXTS, NUMBERS = ("mode", "color", "background", "people"), ("threshold", "feather", "margin")
FLAGS = ("framing", "decontaminate", "reset")
NAMES = (*TEXTS, *NUMBERS, *FLAGS)
EXPECTED = f"expected a JSON object with any of {', '.join(NAMES)}"

MOST_BYTES = 64 * 1024
"""Bytes of a change without its background. Parsing holds Python's lock: megabytes would stop the whole process."""

MOST_MEMBERS = 100
"""Members of a change, counted by commas; 64 KB can hold thousands."""

DATA_URL = b"data:"
SLICE = 2**18
"""Characters of base64 that are decoded at once, a multiple of 4; others may run between two slices."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change that has been read and checked member by member."""

    values: dict[str, Any]
    """The members of the JSON object, without a background that came as a data URL."""
    picture: bytes | None
    """The data URL's picture, still in base64."""

    @property
    def resets(self) -> bool:
        """Whether the session has to forget the prior."""
        return bool(self.values.get("reset"))

    async def background(self, backgrounds: Backgrounds, budget: PixelBudget) -> Frame | Clip | None:
        """The background that it names or brings, decoded. No URL other than a data URL is ever fetched.

        Raises:
            BadOption, BadPicture: there is none of that name, or it is not a picture.
            TooManyPixels: its pixels do not become free in time.
        """
        if self.picture is not None:
            data = await asyncio.to_thread(_decode_base64, self.picture)
            return await decode_background(data, backgrounds, budget, ahead=True)
        name = self.values.get("background")
        return await backgrounds.pick(name) if name is not None else None

    def apply(self, options: Options, background: Frame | Clip | None) -> Options:
        """`options` with these changes.

        Raises:
            BadOption: a value out of its range.
        """
        changed = {name: value for name, value in self.values.items() if name not in ("background", "reset")}
        if background is not None:
            changed["background"] = background
        return replace(options, **changed)


def read_change(body: bytes) -> Change:
    """Read a change from the body of a request.

    Raises:
        BadOption: not JSON, too large, or a member of another name or type than expected.
    """
    body, picture = _without_data_url(body)
    if len(body) > MOST_BYTES:
        raise BadOption("body", f"got {len(body)} bytes besides the background's, expected at most {MOST_BYTES}")
    if (members := body.count(b",") + 1) > MOST_MEMBERS:
        raise BadOption("body", f"got {members} members, {EXPECTED}")
    try:
        values = json.loads(body, object_pairs_hook=_members)
    except (ValueError, RecursionError) as error:
        raise BadOption("body", f"not JSON: {error}") from error
    if not isinstance(values, dict) or (values.keys() - set(NAMES)):
        raise BadOption("body", f"got {body[:80].decode(errors='replace')!r}, {EXPECTED}")
    _check_types(values)
    if values.get("background") == DATA_URL.decode():
        del values["background"]
        return Change(values, picture or b"")
    return Change(values, None)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of these members. Of two with one name Python would take the last, in silence."""
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise BadOption(name[:80], "got the member twice, expected it once")
    return dict(pairs)


def _check_types(values: dict[str, Any]) -> None:
    for name in TEXTS:
        if name in values and not isinstance(values[name], str):
            raise BadOption(name, f"got {values[name]!r}, expected a string")
    for name in NUMBERS:
        value = values.get(name, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1:
            raise BadOption(name, f"got {str(value)[:80]}, expected a number from 0 to 1")
    for name in FLAGS:
        if not isinstance(values.get(name, False), bool):
            raise BadOption(name, f"got {values[name]!r}, expected true or false")


def _without_data_url(body: bytes) -> tuple[bytes, bytes | None]:
    """The body with `"data:"` in place of its first data URL, and the base64 of that one, None without any.

    A background of 24 MB takes the JSON parser 30 ms, in which nothing else in the process runs.
    """
    start = body.find(b'"' + DATA_URL)
    if start < 0:
        return body, None
    start += 1
    end = body.find(b'"', start)
    if end < 0:
        return body, None
    comma = body.find(b",", start, end)
    picture = body[comma + 1 : end] if comma >= 0 else b""
    return body[:start] + DATA_URL + body[end:], picture


def _decode_base64(text: bytes) -> bytes:
    """The bytes of base64 in JSON, where a slash may have a backslash before it (RFC 8259, section 7).

    Raises:
        BadOption: not base64.
    """
    text = text.replace(b"\\/", b"/")
    try:
        slices = (text[at : at + SLICE] for at in range(0, len(text), SLICE))
        return b"".join([base64.b64decode(piece, validate=True) for piece in slices])
    except binascii.Error as error:
        raise BadOption("background", f"got a data URL that is not base64: {error}") from error
