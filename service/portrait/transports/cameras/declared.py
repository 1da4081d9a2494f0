"""Declared cameras: what the operator's file and flags say of each, read and checked at the start."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from portrait.core.compositors import Options
from portrait.errors import BadOption, BadSettings
from portrait.settings import Settings
from portrait.transports.cameras.addresses import Address, Transport

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""A variable of the environment in an address, so that the file need hold no password."""

LOOKS = frozenset(each.name for each in fields(Options))
"""What a camera may say of how its results look: the options of every session."""


class _Entry(BaseModel):
    """What the file may say of a camera, besides LOOKS."""

    model_config = ConfigDict(extra="forbid", strict=True)

    url: str
    always: bool = False
    transport: Transport = "tcp"
    model: str | None = Field(None, min_length=1)
    record: str | None = Field(None, min_length=1)
    record_format: Literal["mkv", "mp4"] = "mkv"
    segment_seconds: float = Field(600.0, ge=1, le=86_400)
    push: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """Where a camera is recorded, and in what pieces."""

    folder: Path
    format: str
    seconds: float


@dataclass(frozen=True)
class Declared:
    """One camera as it was declared."""

    name: str
    address: Address
    always: bool = False
    """Whether it is connected all the time, and not only while it is wanted."""
    model: str | None = None
    options: Options = field(default_factory=Options)
    """How its results look, without a background."""
    background: str = ""
    """The name of its background; empty: none."""
    record: Record | None = None
    push: Address | None = None
    """Where its composed pictures are sent."""

    @property
    def outputs(self) -> list[Record | Address]:
        """Where its composed pictures go besides viewers."""
        return [each for each in (self.record, self.push) if each is not None]


def read_cameras(settings: Settings) -> tuple[Declared, ...]:
    """The cameras of `cameras` and `camera`, in their order. No message repeats an address, which may hold a password.

    Raises:
        BadSettings: the file cannot be used, or what it says of a camera; says which one.
    """
    entries: dict[str, Any] = dict(_file_entries(settings.cameras)) if settings.cameras else {}
    for number, text in enumerate(settings.camera.get_secret_value().split(), 1):
        name, equals, url = text.partition("=")
        if not equals or NAME.fullmatch(name) is None:
            raise BadSettings(f"PORTRAIT_CAMERA: entry {number} is not NAME=URL with a name of letters, digits and _.-")
        if name in entries:
            raise BadSettings(f"PORTRAIT_CAMERA: {name!r} is declared twice")
        entries[name] = url
    return tuple(_declared(name, entry) for name, entry in entries.items())


def _file_entries(path: Path) -> Mapping[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # its text quotes the line, which may hold a password
        raise BadSettings(f"{path}: not valid YAML{f' in line {mark.line + 1}' if mark else ''}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise BadSettings(f"{path}: got no mapping, expected the names of cameras, each with its address")
    for name in document:
        if not isinstance(name, str) or NAME.fullmatch(name) is None:
            raise BadSettings(f"{path}: got the name {str(name)[:80]!r}, expected letters, digits and _.-, at most 64")
    return document


def _declared(name: str, given: Any) -> Declared:
    values = {"url": given} if isinstance(given, str) else given
    if not isinstance(values, dict):
        raise BadSettings(f"camera {name!r}: got {type(given).__name__}, expected an address, or a mapping with url")
    looks = {key: _text(value) for key, value in values.items() if key in LOOKS}
    try:
        entry = _Entry.model_validate({key: value for key, value in values.items() if key not in LOOKS})
        options = Options().changed(looks)
    except ValidationError as error:
        known = ", ".join(sorted({*_Entry.model_fields, *LOOKS}))
        said = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise BadSettings(f"camera {name!r}: {said}; expected {known}") from None
    except BadOption as error:
        raise BadSettings(f"camera {name!r}: {error}") from None
    try:
        address = Address.parse(_expanded(entry.url), entry.transport)
        push = None if entry.push is None else Address.parse_target(_expanded(entry.push))
    except ValueError as error:
        raise BadSettings(f"camera {name!r}: {error}") from None
    record = None
    if entry.record is not None:
        record = Record(Path(entry.record), entry.record_format, entry.segment_seconds)
    always = entry.always or bool(record or push)
    background = looks.get("background", "")
    return Declared(name, address, always, entry.model, options, background, record, push)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _expanded(url: str) -> str:
    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise ValueError(f"the address names ${{{found[1]}}}, which the environment does not have")
        return os.environ[found[1]]

    return VARIABLE.sub(value, url)
