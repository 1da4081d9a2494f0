"""Whole boxes as their users run them: `portrait serve` as a process, with its workers."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

FREE = ["--http-port", "0", "--grpc-port", "0"]


@contextmanager
def serving(
    *arguments: str, python: str | Path = sys.executable, stderr: int | IO[str] = subprocess.PIPE, **environ: str
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """`portrait serve` as a process, and what it announced. Its log goes to `stderr`."""
    process = subprocess.Popen(
        [python, "-m", "portrait", "serve", "--json", *FREE, *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True,
        env={**os.environ, **environ},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield process, json.loads(line)
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and log."""
    _, log = process.communicate(timeout=60)
    return process.returncode, log


def workers(supervisor: int) -> list[int]:
    """The processes of a box's workers, in the order in which they were started."""
    children: list[int] = []
    for listed in Path(f"/proc/{supervisor}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread of the supervisor's that has ended meanwhile
            children += map(int, listed.read_text().split())
    return [child for child in sorted(children) if b"portrait.workers.main" in command_line(child)]


def command_line(process: int) -> bytes:
    """Its words, a zero after each; nothing of one that has ended meanwhile."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What `condition` gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {condition}"
        time.sleep(0.02)
    return found
