"""Breaks the service on purpose, one line at a time, to see that a test catches it: `python -m tests.faults.breaks`.

A test that no break makes fail proves nothing. The breaks are in `breaks/*.toml`, at least one for each test that
`docs/behaviour.md` names; each is made in a copy of the repository.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import copy2

from portrait.python310 import tomllib

ROOT = Path(__file__).parents[2]
LIMIT = 300
"""Seconds for one test; who waits for ever for what does not come any more has caught it."""

TOOLS = (".venv", ".venv-tritonclient", "tests/node/node_modules", "docs/examples/node/node_modules")
"""What is installed beside the sources, and lent to the copy."""


@dataclass(frozen=True)
class Break:
    """Something made wrong in one place."""

    what: str
    file: str
    right: str
    """What stands there, once."""
    wrong: str
    caught_by: tuple[str, ...]
    """Below tests."""

    def made_in(self, text: str) -> str:
        """The text of the file with the break in it.

        Raises:
            AssertionError: what stood there does not, or more than once: the break breaks nothing, or too much.
        """
        count = text.count(self.right)
        assert count == 1, f"{self.what}: {self.file} has {self.right!r} {count} times; expected once"
        assert self.right != self.wrong, f"{self.what}: nothing is changed"
        return text.replace(self.right, self.wrong)


def load_breaks() -> list[Break]:
    """Those of every file."""
    tables = [tomllib.loads(path.read_text()) for path in sorted(Path(__file__).with_suffix("").glob("*.toml"))]
    rows = [row for table in tables for row in table["break"]]
    return [Break(**{**row, "caught_by": tuple(row["caught_by"])}) for row in rows]


@contextmanager
def broken(each: Break) -> Iterator[Path]:
    """A copy of the repository with the break in it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="portrait-broken-") as folder:
        copy = Path(folder)
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                copy2(ROOT / name, copy / name)
        for name in TOOLS:
            if (ROOT / name).exists() and not (copy / name).exists():
                (copy / name).symlink_to((ROOT / name).resolve())
        place = copy / each.file
        place.write_text(each.made_in(place.read_text()))
        try:
            yield copy
        finally:
            end_what_is_left(copy)


def end_what_is_left(copy: Path) -> None:
    """Kill what still runs in the copy: some breaks make processes that outlive their tests."""
    for process in Path("/proc").iterdir():
        with suppress(OSError):  # gone meanwhile, or nobody's business
            if process.name.isdecimal() and (process / "cwd").readlink().is_relative_to(copy):
                os.kill(int(process.name), signal.SIGKILL)


def test(copy: Path, name: str) -> tuple[str, str]:
    """What a test says of the copy, and the line in which it says so; "caught" when it fails."""
    git = subprocess.run(
        ["git", "rev-parse", "--absolute-git-dir"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = f"{copy / 'service'}{os.pathsep}{copy}"
    environ = {**os.environ, "PYTHONPATH": paths, "GIT_DIR": git.stdout.strip(), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{name}"]
    try:
        done = subprocess.run(
            command, cwd=copy, env=environ, capture_output=True, text=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return "caught", f"still waiting after {LIMIT} s"
    assert done.returncode in (0, 1), done.stdout + done.stderr
    if done.returncode == 1:
        why = re.search(r"^(?:E  |ERROR|FAILED) +(.*)$", done.stdout, re.MULTILINE)
        return "caught", why[1][:160] if why else ""
    return ("NOT RUN" if re.search(r"^(?!.*passed).*skipped", done.stdout, re.MULTILINE) else "MISSED"), ""


def main() -> int:
    """The command line; 1 when a break was not caught."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="breaks of which this is a part")
    only = parser.parse_args().only
    caught = missed = 0
    for each in load_breaks():
        if only in f"{each.file} {each.what} {' '.join(each.caught_by)}":
            with broken(each) as copy:
                for name in each.caught_by:
                    verdict, why = test(copy, name)
                    caught, missed = caught + (verdict == "caught"), missed + (verdict != "caught")
                    print(f"{verdict}  {each.what}: {each.file}  {name}  {why}", flush=True)
    print(f"{caught} of {caught + missed} caught")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
