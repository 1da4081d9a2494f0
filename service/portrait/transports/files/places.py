"""Places: what a source or target is (a file, a pipe, a device, an address), and how messages name it."""

import io
import re
import sys
from pathlib import Path
from typing import BinaryIO

from portrait.errors import BadOption, BadPicture

PIPE = "-"
"""Standard input as a source, standard output as a target."""

DEVICES = "/dev/"
CAMERA = "/dev/video"
"""How the path of a camera begins, a virtual camera's as well."""

SHARED_MEMORY = "/dev/shm/"
"""Ordinary files, though they are in /dev."""


def is_live(place: str) -> bool:
    """Whether a source has no known end, or a target is no file: a pipe, a device or an address."""
    is_device = place.startswith(DEVICES) and not place.startswith(SHARED_MEMORY)
    return place == PIPE or "://" in place or is_device


def is_folder(place: str) -> bool:
    """Whether it is a folder that exists."""
    return not is_live(place) and Path(place).is_dir()


def ffmpeg_url(place: str) -> str:
    """What FFmpeg opens it by. Without the scheme a colon in a file's name would be taken for the end of one."""
    return place if is_live(place) else f"file:{place}"


def standard_input() -> io.BufferedReader:
    """Standard input, which can be looked into before it is read.

    Raises:
        BadPicture: it is closed.
    """
    if sys.stdin is None:
        raise BadPicture("IN", "standard input is closed")
    assert isinstance(sys.stdin.buffer, io.BufferedReader)
    return sys.stdin.buffer


def standard_output() -> BinaryIO:
    """Standard output.

    Raises:
        BadOption: it is closed.
    """
    if sys.stdout is None:
        raise BadOption("OUT", "standard output is closed")
    return sys.stdout.buffer


def without_secrets(text: str) -> str:
    """A text without the user name and password of any address in it, for messages, reports and logs."""
    return re.sub(r"://[^/\s'\"]*@", "://", text)


def reason(error: Exception) -> str:
    """What the system or FFmpeg says of a failure, without the name of a file: the caller knows which one."""
    return getattr(error, "strerror", None) or str(error)
