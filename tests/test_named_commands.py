"""Every command that a page names is there, with every flag it is named with, whether or not a test runs it as well.

Run as they stand are those of test_getting_started.py, test_commands.py, test_browser_examples.py, test_examples.py and
deploy/live/test_guide.py. What is left takes minutes, hours, root or a camera.
"""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from portrait.cli import _parser
from portrait.settings import PREFIX, Settings
from tests.snippets import ROOT, blocks

PAGES = [
    page
    for page in (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "service").rglob("*.md"),
        *(ROOT / "clients").rglob("*.md"),
    )
    if "node_modules" not in page.parts
]
MAKEFILE = (ROOT / "Makefile").read_text()
OF_COMPOSE = {"PORTRAIT_IMAGE"}
"""Named like a setting, and a variable of deploy/compose/.env."""


def words(page: Path) -> Iterator[list[str]]:
    """The words of every command, in a line of its own or in a sentence; those of a pipe each for themselves."""
    text = page.read_text()
    lines = [line for block in (*blocks(page), *blocks(page, "sh")) for line in block.replace("\\\n", " ").splitlines()]
    for line in [*lines, *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)]:
        for part in line.partition("  #")[0].split(" | "):
            try:
                found = shlex.split(part)
            except ValueError:  # not a command: a quotation mark stands alone
                continue
            while found and re.match(r"[A-Z_]+=", found[0]):  # a variable that the command is given
                found.pop(0)
            if len(found) > 1:
                yield found


def commands(first: str) -> list[tuple[str, tuple[str, ...]]]:
    """(the page, what follows) of every command that begins so."""
    given = first.split()
    return sorted(
        {
            (str(page.relative_to(ROOT)), tuple(found[len(given) :]))
            for page in PAGES
            for found in words(page)
            if found[: len(given)] == given and len(found) > len(given)
        }
    )


def flags(rest: tuple[str, ...]) -> set[str]:
    return {word.partition("=")[0] for word in rest if re.match(r"--\w", word)}


def test_pages_name_commands_of_each_kind() -> None:
    assert all(len(commands(first)) > 15 for first in ("make", "portrait", "python -m"))


@pytest.mark.parametrize(("page", "rest"), commands("make"), ids=str)
def test_what_is_made_has_a_rule(page: str, rest: tuple[str, ...]) -> None:
    for word in rest:
        name, given, _ = word.partition("=")
        assert re.search(rf"^{re.escape(name)} \?=" if given else rf"^{re.escape(name)}:", MAKEFILE, re.MULTILINE), word


@pytest.mark.parametrize(("page", "rest"), commands("portrait"), ids=str)
def test_every_command_of_portrait_knows_its_flags(page: str, rest: tuple[str, ...]) -> None:
    (subcommands,) = [each for each in _parser()._actions if isinstance(each, argparse._SubParsersAction)]
    assert rest[0] in subcommands.choices
    assert flags(rest) <= set(subcommands.choices[rest[0]]._option_string_actions)


@pytest.mark.parametrize(("page", "rest"), commands("python -m"), ids=str)
def test_every_module_is_there_and_knows_its_flags(page: str, rest: tuple[str, ...]) -> None:
    name = rest[0].replace(".", "/")
    places = [ROOT / f"{root}{name}{suffix}" for root in ("", "service/") for suffix in (".py", "/__main__.py")]
    (source,) = [place for place in places if place.is_file()]
    assert not {flag for flag in flags(rest) if f'"{flag}"' not in with_neighbours(source)}


def with_neighbours(source: Path) -> str:
    """The text of a module, and of those beside it that it imports from: several share a flag."""
    text = source.read_text()
    named = re.findall(r"^from [\w.]*?(\w+) import ", text, re.MULTILINE)
    neighbours = {source.with_name(f"{name}.py") for name in named}
    return "\n".join([text, *(neighbour.read_text() for neighbour in neighbours if neighbour.is_file())])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_setting_that_is_named_is_one(page: Path) -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]*[A-Z]\b", page.read_text()))
    assert named <= {PREFIX + name.upper() for name in Settings.model_fields} | {PREFIX + "CONFIG"} | OF_COMPOSE
