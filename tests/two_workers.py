"""A box of two workers: what it tells, and which of them has what."""

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.boxes import serving

Process = subprocess.Popen[str]

BACK_SECONDS = 2.0
"""Within which a client is to be back."""


@pytest.fixture(scope="module")
def box() -> Iterator[tuple[Process, dict[str, Any]]]:
    """A box of two workers that no test kills."""
    with serving("--workers", "2", "--drain-seconds", "0") as one:
        yield one


def get(url: str) -> Any:
    with urllib.request.urlopen(url) as response:
        return json.load(response)


def scrape(page: str) -> str:
    """The box's metrics; nothing while there is no answer."""
    with suppress(OSError):  # a connection that a worker took which hangs
        return str(urllib.request.urlopen(page + "metrics", timeout=3).read().decode())
    return ""


def worker_of(location: str) -> int:
    found = re.search(r"/v1/\w+/(\d+)-", location)
    assert found, location
    return int(found[1])
